// SPDX-License-Identifier: Apache-2.0
// Device memory of recorded graphs (StreamGraph). Free of CUDA headers.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/cuda_exec.h"

namespace blockstate::kernels::cuda {

/// What the graphs of one device work in. A graph has the addresses that it was recorded with, so its memory stays
/// taken while any graph is there. All graphs share it, since a stream runs one after the other: together they need as
/// much as the largest. A block that outlives its recording (a result) is not handed out again before it is given back.
class GraphMemory {
 public:
  /// That of the device.
  static GraphMemory& of(const Exec& exec);

  /// Makes room for a recording that takes `bytes` at most, in one piece as far as possible: what is taken as it is
  /// asked for lies in many, which cannot be joined. Does nothing where there is not enough.
  void reserve(int64_t bytes);
  /// For StreamGraph: while graphs are there. The last one to leave, or the last block given back after it, frees all.
  void enter(const Exec& exec);
  void leave();
  /// Null where there is not enough. Aligned as the driver's own blocks are.
  std::byte* take(int64_t bytes);
  /// False where the block is not from here.
  bool give(std::byte* block);

 private:
  using Blocks = std::map<std::byte*, int64_t>;  // bytes by address
  Blocks::iterator add_segment(int64_t bytes);
  void free_all_if_unused();

  std::mutex mutex_;
  std::atomic<bool> empty_ = true;
  Exec exec_;
  void* side_stream_ =
      nullptr;  // cudaStream_t: what is taken on the stream that records would become a part of a graph
  int64_t graphs_ = 0;
  Blocks segments_, free_, taken_;
};

}  // namespace blockstate::kernels::cuda
