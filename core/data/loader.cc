// SPDX-License-Identifier: Apache-2.0
#include "core/data/loader.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/base/random.h"

namespace blockstate::data {
namespace {

/// Fisher-Yates.
template <class T>
void shuffle(std::vector<T>& list, uint64_t key) {
  RandomStream stream(key);
  for (size_t i = list.size(); i > 1; --i) {
    std::swap(list[i - 1], list[stream.below(i)]);
  }
}

}  // namespace

std::vector<std::vector<int64_t>> plan_epoch(const std::vector<int64_t>& lengths, int64_t examples, int64_t epoch,
                                             const LoaderOptions& options) {
  const uint64_t key = mix_key(options.seed, static_cast<uint64_t>(epoch));
  std::vector<int64_t> order(static_cast<size_t>(examples));
  std::iota(order.begin(), order.end(), 0);
  const bool shuffled = options.shuffle && !options.sequential;
  if (shuffled) {
    shuffle(order, key);
  }
  if (options.bucket && !options.sequential) {
    const int64_t window = kBucketWindow * options.batch_size;
    for (int64_t begin = 0; begin < examples; begin += window) {
      // Stable, so that equals keep the order of the permutation.
      std::stable_sort(order.begin() + begin, order.begin() + std::min(begin + window, examples),
                       [&](int64_t a, int64_t b) { return lengths[a] < lengths[b]; });
    }
  }
  std::vector<std::vector<int64_t>> batches;
  for (int64_t begin = 0; begin < examples; begin += options.batch_size) {
    batches.emplace_back(order.begin() + begin, order.begin() + std::min(begin + options.batch_size, examples));
  }
  if (shuffled) {
    shuffle(batches, mix_key(key, 0x6f72646572));
  }
  return batches;
}

Loader::Loader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options)
    : dataset_(std::move(dataset)), options_(options) {
  const int64_t size = dataset_->size();
  require(size > 0, "the data set is empty: no example is left to load");
  require(options_.batch_size > 0, "a batch of ", options_.batch_size, " examples, wanted at least 1");
  require(options_.threads >= 0 && options_.prefetch >= 0, "a loader of ", options_.threads, " threads and ",
          options_.prefetch, " batches ahead, wanted at least 0 of both");
  batches_per_epoch_ = (size + options_.batch_size - 1) / options_.batch_size;
  if (options_.bucket && !options_.sequential) {
    for (int64_t i = 0; i < size; ++i) {
      lengths_.push_back(dataset_->length(i));
    }
  }
  const int threads = options_.prefetch > 0 ? options_.threads : 0;
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { work(); });
  }
}

Loader::~Loader() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  room_.notify_all();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

std::shared_ptr<const Loader::Plan> Loader::plan_of(int64_t epoch) {
  std::lock_guard lock(plan_mutex_);
  auto& plan = plans_[epoch];
  if (!plan) {
    plan = std::make_shared<const Plan>(plan_epoch(lengths_, dataset_->size(), epoch, options_));
  }
  const std::shared_ptr<const Plan> found = plan;
  // Readers are at most one epoch apart, but for a seek, after which what was thrown away is made again.
  while (plans_.size() > 2) {
    plans_.erase(plans_.begin()->first == epoch ? std::prev(plans_.end()) : plans_.begin());
  }
  return found;
}

Loader::Slot Loader::load(int64_t number) {
  Slot slot;
  try {
    const std::shared_ptr<const Plan> plan = plan_of(number / batches_per_epoch_);
    std::vector<Example> examples;
    for (const int64_t index : (*plan)[number % batches_per_epoch_]) {
      examples.push_back(dataset_->get(index));
    }
    slot.batch = collate(examples, options_.batch);
  } catch (...) {
    slot.error = std::current_exception();
  }
  return slot;
}

void Loader::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    room_.wait(lock,
               [this] { return stopping_ || (next_start_ < position_ + options_.prefetch && !ended(next_start_)); });
    if (stopping_) {
      return;
    }
    const int64_t number = next_start_++;
    const int64_t generation = generation_;
    lock.unlock();
    Slot slot = load(number);
    lock.lock();
    if (generation == generation_) {
      slots_.emplace(number, std::move(slot));
      ready_.notify_all();
    }
  }
}

std::optional<Batch> Loader::next() {
  std::unique_lock lock(mutex_);
  if (ended(position_)) {
    return std::nullopt;
  }
  Slot slot;
  if (threads_.empty()) {
    slot = load(position_);
  } else {
    ready_.wait(lock, [this] { return slots_.count(position_) > 0; });
    slot = std::move(slots_.extract(position_).mapped());
  }
  ++position_;
  lock.unlock();
  room_.notify_all();
  if (slot.error) {
    std::rethrow_exception(slot.error);
  }
  return std::move(slot.batch);
}

int64_t Loader::position() const {
  std::lock_guard lock(mutex_);
  return position_;
}

void Loader::seek(int64_t position) {
  require(position >= 0, "a loader cannot go to batch ", position);
  {
    std::lock_guard lock(mutex_);
    position_ = position;
    next_start_ = position;
    slots_.clear();
    ++generation_;
  }
  room_.notify_all();
}

}  // namespace blockstate::data
