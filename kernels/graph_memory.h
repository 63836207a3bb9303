// SPDX-License-Identifier: Apache-2.0
// Device memory of recorded graphs (StreamGraph). Free of CUDA headers.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "kernels/cuda_exec.h"

namespace blockstate::kernels::cuda {

/// The blocks that a piece of work takes and gives back, in their order: recording the same work will do the same.
class MemoryNeeds {
 public:
  struct Block {
    int64_t bytes;
    int64_t begin, end;  ///< taken and given back, in takes and gives counted together
  };
  /// Does the work and watches this thread meanwhile.
  void watch(const std::function<void()>& work);
  const std::vector<Block>& blocks() const { return blocks_; }
  /// The most that is taken at once.
  int64_t bytes() const { return most_; }

  // For take_memory and give_memory, on the one that watches this thread (null: none).
  static MemoryNeeds* watching() { return watching_; }
  void took(std::byte* block, int64_t bytes);
  void gave(std::byte* block);

 private:
  static thread_local MemoryNeeds* watching_;
  std::vector<Block> blocks_;
  std::map<std::byte*, size_t> living_;
  int64_t time_ = 0, now_ = 0, most_ = 0;
};

/// What the graphs of one device work in. A graph has the addresses that it was recorded with, so its memory stays
/// taken while any graph is there. All graphs share it, since a stream runs one after the other: together they need as
/// much as the largest where that is recorded first; a larger one that comes later takes a segment of its own. A block
/// that outlives its recording (a result) is not handed out again before it is given back.
class GraphMemory {
 public:
  /// That of the device.
  static GraphMemory& of(const Exec& exec);

  /// Finds a place for each block that the next recording takes, so that it needs little more than `needs.bytes()`:
  /// blocks placed as they are asked for leave gaps, up to a fifth more. Does nothing where there is not enough.
  void plan(const MemoryNeeds& needs);
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
  std::vector<int64_t> places_in(const Blocks::value_type& segment, const MemoryNeeds& needs) const;
  Blocks::iterator planned_place(int64_t bytes, std::byte** address);
  void free_all_if_unused();

  std::mutex mutex_;
  std::atomic<bool> empty_ = true;
  Exec exec_;
  void* side_stream_ =
      nullptr;  // cudaStream_t: what is taken on the stream that records would become a part of a graph
  int64_t graphs_ = 0;
  Blocks segments_, free_, taken_;
  std::vector<std::pair<std::byte*, int64_t>> plan_;  // places and bytes of the blocks to come, the next one last
};

}  // namespace blockstate::kernels::cuda
