// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda_exec.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <mutex>
#include <vector>

#include "core/base/check.h"
#include "kernels/graph_memory.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kMaxDevices = 64;
constexpr int kOldestCapability = 80;

cudaStream_t stream_of(const Exec& exec) { return static_cast<cudaStream_t>(exec.stream); }

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    cudaGetLastError();
    fail("CUDA failed to ", what, ": ", cudaGetErrorString(status));
  }
}

std::string version_text(int version) { return join(version / 1000, ".", version % 1000 / 10); }

cudaMemPool_t pool_of(const Exec& exec) {
  cudaMemPool_t pool;
  check(cudaDeviceGetDefaultMemPool(&pool, exec.device), "find the memory pool");
  return pool;
}

int64_t pool_bytes(const Exec& exec, cudaMemPoolAttr attribute) {
  uint64_t bytes = 0;
  check(cudaMemPoolGetAttribute(pool_of(exec), attribute, &bytes), "read the memory pool");
  return static_cast<int64_t>(bytes);
}

thread_local bool host_is_out_of_reach = false;  // while this thread records a graph

/// A graph would do again what the host did once: copy what lay in its memory then, or wait for nothing.
void check_host_in_reach(const char* what) {
  require(!host_is_out_of_reach, "while a graph is recorded the GPU cannot be ", what,
          ": what depends on values in the host's memory cannot be repeated");
}

Exec make_exec(int device) {
  const std::string reason = why_unusable(device);
  require(reason.empty(), reason);
  check(cudaSetDevice(device), "select the GPU");
  Exec made;
  made.device = device;
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
  made.stream = stream;
  // Freed blocks stay with the process: a training step asks for the same sizes over and over.
  uint64_t threshold = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool_of(made), cudaMemPoolAttrReleaseThreshold, &threshold), "set up the memory pool");
  return made;
}

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::string why_unusable(int device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    return driver == 0
               ? "no NVIDIA driver was found on this machine; use device = \"cpu\""
               : join("the NVIDIA driver serves CUDA ", version_text(driver), ", blockstate was built with CUDA ",
                      version_text(runtime), "; install a newer driver or use device = \"cpu\"");
  }
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    return "no GPU was found on this machine; use device = \"cpu\"";
  }
  if (device < 0 || device >= count) {
    return join("cuda:", device, " was asked for, but this machine has ", count, count == 1 ? " GPU" : " GPUs",
                ", counted from 0");
  }
  const DeviceProperties properties = device_properties(device);
  if (properties.compute_capability < kOldestCapability) {
    return join(properties.name, " has compute capability ", properties.compute_capability / 10, ".",
                properties.compute_capability % 10, "; blockstate needs ", kOldestCapability / 10, ".",
                kOldestCapability % 10, " (Ampere, 2020) or newer. Use device = \"cpu\"");
  }
  return {};
}

DeviceProperties device_properties(int device) {
  cudaDeviceProp found;
  check(cudaGetDeviceProperties(&found, device), "read the properties of the GPU");
  DeviceProperties properties;
  properties.name = found.name;
  properties.multiprocessors = found.multiProcessorCount;
  properties.compute_capability = 10 * found.major + found.minor;
  properties.memory = static_cast<int64_t>(found.totalGlobalMem);
  properties.l2_cache = found.l2CacheSize;
  check(cudaDeviceGetAttribute(&properties.clock_khz, cudaDevAttrClockRate, device), "read the clock of the GPU");
  return properties;
}

Exec exec(int device) {
  static std::mutex mutex;
  static std::array<Exec, kMaxDevices> made;
  std::lock_guard lock(mutex);
  require(device >= 0 && device < kMaxDevices, "cuda:", device, " is no GPU of this machine");
  if (made[device].stream == nullptr) {
    made[device] = make_exec(device);
  }
  check(cudaSetDevice(device), "select the GPU");  // a setting of the thread
  return made[device];
}

void synchronize(const Exec& exec) {
  check_host_in_reach("waited for");
  check(cudaStreamSynchronize(stream_of(exec)), "finish the work of the GPU");
}

/// Of one recording.
struct StreamGraph::Arena {
  GraphMemory& memory;
  std::vector<std::byte*> others;  ///< given back in the body but not taken there: the graph must not free them
};

thread_local StreamGraph::Arena* StreamGraph::recording_ = nullptr;

std::byte* take_memory(const Exec& exec, int64_t bytes) {
  if (StreamGraph::recording_ != nullptr) {
    return StreamGraph::recording_->memory.take(bytes);
  }
  void* memory = nullptr;
  for (int attempt = 0; attempt < 2; ++attempt) {
    const cudaError_t status = cudaMallocAsync(&memory, static_cast<size_t>(bytes > 0 ? bytes : 1), stream_of(exec));
    if (status == cudaSuccess) {
      if (MemoryNeeds* needs = MemoryNeeds::watching()) {
        needs->took(static_cast<std::byte*>(memory), bytes);
      }
      return static_cast<std::byte*>(memory);
    }
    cudaGetLastError();
    require(status == cudaErrorMemoryAllocation, "CUDA failed to allocate ", bytes,
            " bytes: ", cudaGetErrorString(status));
    cudaStreamSynchronize(stream_of(exec));
    release_memory(exec);
  }
  return nullptr;
}

void give_memory(const Exec& exec, std::byte* memory) {
  if (GraphMemory::of(exec).give(memory)) {
    return;
  }
  if (StreamGraph::recording_ != nullptr) {
    StreamGraph::recording_->others.push_back(memory);
    return;
  }
  if (MemoryNeeds* needs = MemoryNeeds::watching()) {
    needs->gave(memory);
  }
  cudaFreeAsync(memory,
                stream_of(exec));  // an earlier error of the stream would come back here: it is reported elsewhere
}

MemoryUse memory_use(const Exec& exec) {
  return {pool_bytes(exec, cudaMemPoolAttrUsedMemCurrent), pool_bytes(exec, cudaMemPoolAttrUsedMemHigh),
          pool_bytes(exec, cudaMemPoolAttrReservedMemCurrent)};
}

void reset_peak_memory(const Exec& exec) {
  uint64_t zero = 0;
  check(cudaMemPoolSetAttribute(pool_of(exec), cudaMemPoolAttrUsedMemHigh, &zero), "reset the peak of the memory pool");
}

int64_t free_memory(const Exec& exec) {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "read the memory of the GPU");
  const MemoryUse use = memory_use(exec);
  return static_cast<int64_t>(free) + use.reserved - use.in_use;
}

void release_memory(const Exec& exec) { cudaMemPoolTrimTo(pool_of(exec), 0); }

StreamGraph::StreamGraph(const Exec& exec)
    : exec_(exec), arena_(std::make_unique<Arena>(Arena{GraphMemory::of(exec), {}})) {
  arena_->memory.enter(exec);
}

StreamGraph::~StreamGraph() {
  cudaStreamSynchronize(stream_of(exec_));  // its memory must not go while it runs
  if (executable_ != nullptr) {
    cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_));
  }
  arena_->memory.leave();
}

void StreamGraph::record(const std::function<void()>& body) {
  require(executable_ == nullptr, "a graph is recorded once");
  synchronize(exec_);  // what was freed on the stream can then serve the graph
  check(cudaStreamBeginCapture(stream_of(exec_), cudaStreamCaptureModeRelaxed), "begin a graph");
  cudaGraph_t graph = nullptr;
  std::exception_ptr problem;
  recording_ = arena_.get();
  host_is_out_of_reach = true;
  try {
    body();
  } catch (...) {
    problem = std::current_exception();
  }
  recording_ = nullptr;
  host_is_out_of_reach = false;
  const cudaError_t ended = cudaStreamEndCapture(stream_of(exec_), &graph);
  for (std::byte* memory : arena_->others) {
    give_memory(exec_, memory);
  }
  arena_->others.clear();
  cudaGraphExec_t made = nullptr;
  const bool whole = !problem && ended == cudaSuccess;
  const cudaError_t status = whole ? cudaGraphInstantiate(&made, graph, 0) : ended;
  if (graph != nullptr) {
    cudaGraphDestroy(graph);
  }
  if (problem) {
    cudaGetLastError();
    std::rethrow_exception(problem);
  }
  check(status, "make a graph");
  executable_ = made;
}

void StreamGraph::launch() {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_), stream_of(exec_)), "launch a graph");
}

StreamClock::StreamClock(const Exec& exec) : exec_(exec), events_() {
  for (void*& event : events_) {
    cudaEvent_t made;
    check(cudaEventCreate(&made), "make an event");
    event = made;
  }
}

StreamClock::~StreamClock() {
  for (void* event : events_) {
    cudaEventDestroy(static_cast<cudaEvent_t>(event));
  }
}

void StreamClock::start() {
  check(cudaEventRecord(static_cast<cudaEvent_t>(events_[0]), stream_of(exec_)), "record an event");
}

void StreamClock::stop() {
  check(cudaEventRecord(static_cast<cudaEvent_t>(events_[1]), stream_of(exec_)), "record an event");
}

double StreamClock::seconds() const {
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(events_[1])), "wait for an event");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(events_[0]), static_cast<cudaEvent_t>(events_[1])),
        "read the time between events");
  return 1e-3 * static_cast<double>(milliseconds);
}

namespace {

/// Page-locked memory that copies to a device go through, a few slots of it in turn. The driver would wait for the
/// stream before it reads pageable memory. Small copies from a device go the same way: a step of generation waits for
/// its logits.
class StagingRing {
 public:
  void copy(const Exec& exec, std::byte* to, const std::byte* from, int64_t bytes) {
    std::lock_guard lock(mutex_);
    for (int64_t done = 0; done < bytes; done += kSlotBytes) {
      const auto piece = static_cast<size_t>(std::min(kSlotBytes, bytes - done));
      const Slot& slot = next();
      std::memcpy(slot.memory, from + done, piece);
      check(cudaMemcpyAsync(to + done, slot.memory, piece, cudaMemcpyHostToDevice, stream_of(exec)), "copy to the GPU");
      check(cudaEventRecord(slot.read, stream_of(exec)), "record an event");
    }
  }

  /// Of kSlotBytes at most.
  void copy_back(const Exec& exec, void* to, const void* from, int64_t bytes) {
    std::lock_guard lock(mutex_);
    const Slot& slot = next();
    check(cudaMemcpyAsync(slot.memory, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_of(exec)),
          "copy from the GPU");
    synchronize(exec);
    std::memcpy(to, slot.memory, static_cast<size_t>(bytes));
  }

  static constexpr int64_t kSlotBytes = 1 << 20;

 private:
  static constexpr int kSlots = 16;

  struct Slot {
    void* memory = nullptr;
    cudaEvent_t read = nullptr;
  };

  /// A slot that no copy reads any more.
  const Slot& next() {
    Slot& slot = slots_[used_++ % kSlots];
    if (slot.memory == nullptr) {
      check(cudaHostAlloc(&slot.memory, static_cast<size_t>(kSlotBytes), cudaHostAllocDefault),
            "allocate page-locked memory");
      check(cudaEventCreateWithFlags(&slot.read, cudaEventDisableTiming), "make an event");
    }
    check(cudaEventSynchronize(slot.read), "wait for a copy to the GPU");  // at once where nothing was recorded
    return slot;
  }

  std::mutex mutex_;
  std::array<Slot, kSlots> slots_;
  size_t used_ = 0;
};

using StagingRings = std::array<StagingRing, kMaxDevices>;
// One a device and direction: whoever waits for a result does not hold up those who bring data. Leaked on purpose:
// copies may happen until the process ends.
StagingRing& uploads(const Exec& exec) {
  static auto* const rings = new StagingRings;
  return (*rings)[static_cast<size_t>(exec.device)];
}
StagingRing& downloads(const Exec& exec) {
  static auto* const rings = new StagingRings;
  return (*rings)[static_cast<size_t>(exec.device)];
}

}  // namespace

void copy_to_device(const Exec& exec, void* to, const void* from, int64_t bytes) {
  check_host_in_reach("given data of the host");
  uploads(exec).copy(exec, static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes);
}

void copy_to_host(const Exec& exec, void* to, const void* from, int64_t bytes) {
  check_host_in_reach("asked for data");
  if (bytes <= StagingRing::kSlotBytes) {
    downloads(exec).copy_back(exec, to, from, bytes);
    return;
  }
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_of(exec)),
        "copy from the GPU");
  synchronize(exec);
}

void copy_on_device(const Exec& exec, void* to, const void* from, int64_t bytes) {
  check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream_of(exec)),
        "copy on the GPU");
}

void fill_zero(const Exec& exec, void* to, int64_t bytes) {
  check(cudaMemsetAsync(to, 0, static_cast<size_t>(bytes), stream_of(exec)), "clear memory of the GPU");
}

}  // namespace blockstate::kernels::cuda
