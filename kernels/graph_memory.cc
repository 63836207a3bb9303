// SPDX-License-Identifier: Apache-2.0
#include "kernels/graph_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>

namespace blockstate::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 512;
constexpr int64_t kSmallestSegment = int64_t{2} << 20;

int64_t round_up(int64_t bytes, int64_t multiple) { return (bytes + multiple - 1) / multiple * multiple; }
int64_t block_bytes(int64_t bytes) { return round_up(std::max<int64_t>(bytes, 1), kAlignment); }

}  // namespace

thread_local MemoryNeeds* MemoryNeeds::watching_ = nullptr;

void MemoryNeeds::watch(const std::function<void()>& work) {
  struct Scope {
    explicit Scope(MemoryNeeds* needs) { watching_ = needs; }
    ~Scope() { watching_ = nullptr; }
  } scope(this);
  work();
}

void MemoryNeeds::took(std::byte* block, int64_t bytes) {
  bytes = block_bytes(bytes);
  living_[block] = blocks_.size();
  blocks_.push_back({bytes, time_++, INT64_MAX});
  now_ += bytes;
  most_ = std::max(most_, now_);
}

void MemoryNeeds::gave(std::byte* block) {
  const auto found = living_.find(block);
  if (found != living_.end()) {
    blocks_[found->second].end = time_++;
    now_ -= blocks_[found->second].bytes;
    living_.erase(found);
  }
}

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
  plan_.clear();
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

/// Offsets in the segment around what is taken there: the largest block first, each at the lowest place that no block
/// has that lives when it does. Beyond the segment's end where there is no room.
std::vector<int64_t> GraphMemory::places_in(const Blocks::value_type& segment, const MemoryNeeds& needs) const {
  const std::vector<MemoryNeeds::Block>& blocks = needs.blocks();
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  using Range = std::pair<int64_t, int64_t>;
  std::vector<Range> obstacles;
  for (auto at = taken_.lower_bound(segment.first); at != taken_.end() && at->first < segment.first + segment.second;
       ++at) {
    obstacles.emplace_back(at->first - segment.first, at->first - segment.first + at->second);
  }
  std::vector<int64_t> places(blocks.size(), 0);
  for (size_t i = 0; i < order.size(); ++i) {
    const MemoryNeeds::Block& block = blocks[order[i]];
    std::vector<Range> busy = obstacles;
    for (size_t j = 0; j < i; ++j) {
      const MemoryNeeds::Block& other = blocks[order[j]];
      if (other.begin < block.end && block.begin < other.end) {
        busy.emplace_back(places[order[j]], places[order[j]] + other.bytes);
      }
    }
    std::sort(busy.begin(), busy.end());
    int64_t place = 0;
    for (const auto& [begin, end] : busy) {
      if (begin - place >= block.bytes) {
        break;
      }
      place = std::max(place, end);
    }
    places[order[i]] = place;
  }
  return places;
}

void GraphMemory::plan(const MemoryNeeds& needs) {
  std::lock_guard lock(mutex_);
  const std::vector<MemoryNeeds::Block>& blocks = needs.blocks();
  plan_.clear();
  const auto end_of = [&](const std::vector<int64_t>& places) {
    int64_t end = 0;
    for (size_t i = 0; i < places.size(); ++i) {
      end = std::max(end, places[i] + blocks[i].bytes);
    }
    return end;
  };
  std::byte* base = nullptr;
  std::vector<int64_t> places;
  for (const auto& segment : segments_) {
    places = places_in(segment, needs);
    if (end_of(places) <= segment.second) {
      base = segment.first;
      break;
    }
  }
  if (base == nullptr) {
    places = places_in({nullptr, 0}, needs);
    cudaStreamSynchronize(static_cast<cudaStream_t>(exec_.stream));  // what was freed on it can then be reused
    const auto segment = add_segment(end_of(places));
    if (segment == free_.end()) {
      return;
    }
    base = segment->first;
  }
  for (size_t i = blocks.size(); i-- > 0;) {
    plan_.emplace_back(base + places[i], blocks[i].bytes);
  }
}

/// The free block in which the next planned place lies; none where the recording takes another block than was planned,
/// or something else lies there.
GraphMemory::Blocks::iterator GraphMemory::planned_place(int64_t bytes, std::byte** address) {
  if (plan_.empty()) {
    return free_.end();
  }
  const auto [place, planned] = plan_.back();
  plan_.pop_back();
  auto block = free_.upper_bound(place);
  if (planned != bytes || block == free_.begin()) {
    return free_.end();
  }
  --block;
  *address = place;
  return block->first + block->second >= place + bytes ? block : free_.end();
}

/// Where it was planned, else of the smallest free block that is large enough.
std::byte* GraphMemory::take(int64_t bytes) {
  std::lock_guard lock(mutex_);
  bytes = block_bytes(bytes);
  std::byte* address = nullptr;
  auto from = planned_place(bytes, &address);
  if (from == free_.end()) {
    for (auto block = free_.begin(); block != free_.end(); ++block) {
      if (block->second >= bytes && (from == free_.end() || block->second < from->second)) {
        from = block;
      }
    }
    from = from == free_.end() ? add_segment(bytes) : from;
    if (from == free_.end()) {
      return nullptr;
    }
    address = from->first;
  }
  const auto [begin, size] = *from;
  free_.erase(from);
  if (address > begin) {
    free_.emplace(begin, address - begin);
  }
  if (begin + size > address + bytes) {
    free_.emplace(address + bytes, begin + size - (address + bytes));
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
