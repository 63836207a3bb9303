// SPDX-License-Identifier: Apache-2.0
// Where CUDA kernels run. Free of CUDA headers, so that every room can hold one; C++17-clean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace blockstate::kernels::cuda {

/// One GPU and the stream that all its work is put on, in order: what a kernel writes, a later one may read, and memory
/// given back may be handed out again at once.
struct Exec {
  int device = 0;
  void* stream = nullptr;  ///< cudaStream_t
};

/// GPUs that this build can use; 0 where the build has no CUDA code, where there is no driver, or no GPU.
int device_count();
/// A sentence that says why a GPU cannot be used, and what would help; empty where it can be.
std::string why_unusable(int device);

struct DeviceProperties {
  std::string name;
  int multiprocessors = 0;
  int compute_capability = 0;  ///< 90 for 9.0
  int64_t memory = 0;          ///< bytes
  int64_t l2_cache = 0;        ///< bytes
  int clock_khz = 0;
};
DeviceProperties device_properties(int device);

/// The device's stream, made at the first call. Error that says what is missing where there is no usable GPU.
Exec exec(int device);
/// Waits for all work put on the stream, and reports an error that a kernel ran into.
void synchronize(const Exec& exec);

/// Memory for later work of this stream, from the driver's pool. Null where there is not enough.
std::byte* take_memory(const Exec& exec, int64_t bytes);
void give_memory(const Exec& exec, std::byte* memory);
struct MemoryUse {
  int64_t in_use = 0;    ///< bytes taken and not given back
  int64_t peak = 0;      ///< largest in_use since the last reset_peak_memory
  int64_t reserved = 0;  ///< bytes that the pool holds, in use or cached
};
MemoryUse memory_use(const Exec& exec);
void reset_peak_memory(const Exec& exec);
/// Bytes of the device that nobody holds, this process's cached ones included.
int64_t free_memory(const Exec& exec);
/// Gives cached memory back to the device.
void release_memory(const Exec& exec);

/// A recorded sequence of work that is put on the stream again as a whole, at a fraction of the launches' cost.
class StreamGraph {
 public:
  explicit StreamGraph(const Exec& exec);
  ~StreamGraph();
  StreamGraph(const StreamGraph&) = delete;
  StreamGraph& operator=(const StreamGraph&) = delete;
  /// Records what `body` puts on the stream without doing it. Error where it waits for the device, or copies to or from
  /// the host. Memory taken in it that outlives it holds a launch's results, until any graph of the device runs again.
  void record(const std::function<void()>& body);
  void launch();

 private:
  struct Arena;
  friend std::byte* take_memory(const Exec& exec, int64_t bytes);
  friend void give_memory(const Exec& exec, std::byte* memory);
  static thread_local Arena* recording_;  ///< where memory comes from while this thread records

  Exec exec_;
  void* executable_ = nullptr;  // cudaGraphExec_t
  std::unique_ptr<Arena> arena_;
};

/// Points in the stream's time, for benchmarks.
class StreamClock {
 public:
  explicit StreamClock(const Exec& exec);
  ~StreamClock();
  StreamClock(const StreamClock&) = delete;
  StreamClock& operator=(const StreamClock&) = delete;
  void start();
  void stop();
  /// Between start and stop, as the GPU saw them; waits for stop.
  double seconds() const;

 private:
  Exec exec_;
  void* events_[2];  // cudaEvent_t
};

/// Copies are ordered with the stream's work. To and from the host they return when the host may use or reuse its side;
/// one to the device does not wait for the work before it, so the host can lay out the next batch while the GPU
/// computes.
void copy_to_device(const Exec& exec, void* to, const void* from, int64_t bytes);
void copy_to_host(const Exec& exec, void* to, const void* from, int64_t bytes);
void copy_on_device(const Exec& exec, void* to, const void* from, int64_t bytes);
void fill_zero(const Exec& exec, void* to, int64_t bytes);

}  // namespace blockstate::kernels::cuda
