// SPDX-License-Identifier: Apache-2.0
#include "kernels/graph_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace blockstate::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 512;
constexpr int64_t kSmallestSegment = int64_t{2} << 20;

int64_t round_up(int64_t bytes, int64_t multiple) { return (bytes + multiple - 1) / multiple * multiple; }

}  // namespace

GraphMemory& GraphMemory::of(const Exec& exec) {
  // Leaked on purpose: tensors in static objects may outlive any order of destruction.
  static auto* const all = new std::array<GraphMemory, 64>;
  return all->at(static_cast<size_t>(exec.device));
}

void GraphMemory::enter(const Exec& exec) {
  std::lock_guard lock(mutex_);
  exec_ = exec;
  ++graphs_;
}

void GraphMemory::leave() {
  std::lock_guard lock(mutex_);
  --graphs_;
  free_all_if_unused();
}

void GraphMemory::free_all_if_unused() {
  if (graphs_ > 0 || !taken_.empty()) {
    return;
  }
  for (const auto& [address, bytes] : segments_) {
    cudaFreeAsync(address, static_cast<cudaStream_t>(exec_.stream));
  }
  segments_.clear();
  free_.clear();
  empty_ = true;
}

/// From the pool that all other memory comes from, on another stream: it reuses what the pool has cached and is counted
/// as in use.
GraphMemory::Blocks::iterator GraphMemory::add_segment(int64_t bytes) {
  bytes = round_up(bytes, kSmallestSegment);
  if (side_stream_ == nullptr) {
    cudaStream_t made = nullptr;
    if (cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking) != cudaSuccess) {
      cudaGetLastError();
      return free_.end();
    }
    side_stream_ = made;
  }
  const auto stream = static_cast<cudaStream_t>(side_stream_);
  void* memory = nullptr;
  if (cudaMallocAsync(&memory, static_cast<size_t>(bytes), stream) != cudaSuccess ||
      cudaStreamSynchronize(stream) != cudaSuccess) {
    cudaGetLastError();
    return free_.end();
  }
  empty_ = false;
  segments_.emplace(static_cast<std::byte*>(memory), bytes);
  return free_.emplace(static_cast<std::byte*>(memory), bytes).first;
}

void GraphMemory::reserve(int64_t bytes) {
  std::lock_guard lock(mutex_);
  for (const auto& [address, size] : free_) {
    bytes -= size;
  }
  if (bytes > 0) {
    cudaStreamSynchronize(static_cast<cudaStream_t>(exec_.stream));  // what was freed on it can then be reused
    add_segment(bytes);
  }
}

/// The smallest free block that is large enough is cut.
std::byte* GraphMemory::take(int64_t bytes) {
  std::lock_guard lock(mutex_);
  bytes = round_up(std::max<int64_t>(bytes, 1), kAlignment);
  auto best = free_.end();
  for (auto block = free_.begin(); block != free_.end(); ++block) {
    if (block->second >= bytes && (best == free_.end() || block->second < best->second)) {
      best = block;
    }
  }
  if (best == free_.end()) {
    best = add_segment(bytes);
    if (best == free_.end()) {
      return nullptr;
    }
  }
  const auto [address, size] = *best;
  free_.erase(best);
  if (size > bytes) {
    free_.emplace(address + bytes, size - bytes);
  }
  taken_.emplace(address, bytes);
  return address;
}

/// Joined with its free neighbours in the segment.
bool GraphMemory::give(std::byte* block) {
  if (empty_) {
    return false;
  }
  std::lock_guard lock(mutex_);
  const auto found = taken_.find(block);
  if (found == taken_.end()) {
    return false;
  }
  auto at = free_.emplace(found->first, found->second).first;
  taken_.erase(found);
  const auto next = std::next(at);
  if (next != free_.end() && at->first + at->second == next->first && segments_.count(next->first) == 0) {
    at->second += next->second;
    free_.erase(next);
  }
  if (at != free_.begin() && segments_.count(at->first) == 0) {
    const auto previous = std::prev(at);
    if (previous->first + previous->second == at->first) {
      previous->second += at->second;
      free_.erase(at);
    }
  }
  free_all_if_unused();
  return true;
}

}  // namespace blockstate::kernels::cuda
