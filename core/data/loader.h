// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "core/data/batch.h"
#include "core/data/dataset.h"

namespace blockstate::data {

struct LoaderOptions {
  int64_t batch_size = 1;
  uint64_t seed = 0;
  bool sequential =
      false;  ///< one pass in the order of the dataset, for evaluation; `shuffle` and `bucket` do not count
  bool shuffle = true;
  bool bucket = true;    ///< put examples of similar length into one batch, to pad less
  int threads = 1;       ///< that read ahead; 0: next() reads by itself
  int64_t prefetch = 4;  ///< batches read ahead at most
  BatchOptions batch;
};

/// The examples of one epoch, batch by batch: a pure function of its arguments. A permutation of the dataset; in each
/// window of kBucketWindow batches sorted by length where `bucket`; cut into batches, of which only the last can be
/// short; whose order is then permuted. `lengths` is empty, or one number an example.
inline constexpr int64_t kBucketWindow = 50;
std::vector<std::vector<int64_t>> plan_epoch(const std::vector<int64_t>& lengths, int64_t examples, int64_t epoch,
                                             const LoaderOptions& options);

/// Batches of a dataset, for ever (epoch after epoch) or, `sequential`, once. Batch number i is a pure function of
/// (dataset, options.seed, i): thread count and prefetch do not change it, so position() is all that need be saved.
class Loader {
 public:
  /// Error on an empty dataset, or what Dataset::length throws.
  Loader(std::shared_ptr<const Dataset> dataset, const LoaderOptions& options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// The next batch; nullopt after the last one of a sequential pass. What Dataset::get or collate threw for this batch
  /// is thrown here, in order; the position then is behind that batch.
  std::optional<Batch> next();

  /// Batches taken so far, since the first epoch's first.
  int64_t position() const;
  /// Goes on as after `position` calls of next().
  void seek(int64_t position);

  int64_t batches_per_epoch() const { return batches_per_epoch_; }
  /// Epoch of the next batch, from 0.
  int64_t epoch() const { return position() / batches_per_epoch_; }
  const Dataset& dataset() const { return *dataset_; }

 private:
  struct Slot {
    Batch batch;
    std::exception_ptr error;
  };
  using Plan = std::vector<std::vector<int64_t>>;

  Slot load(int64_t number);
  std::shared_ptr<const Plan> plan_of(int64_t epoch);
  bool ended(int64_t number) const { return options_.sequential && number >= batches_per_epoch_; }
  void work();

  std::shared_ptr<const Dataset> dataset_;
  LoaderOptions options_;
  std::vector<int64_t> lengths_;
  int64_t batches_per_epoch_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable room_;   ///< a worker may start a batch, or must stop
  std::condition_variable ready_;  ///< a batch is there
  std::map<int64_t, Slot> slots_;  ///< read ahead, by number
  int64_t position_ = 0;
  int64_t next_start_ = 0;  ///< number of the batch that the next free worker takes
  int64_t generation_ = 0;  ///< counts seeks: work begun before one is thrown away
  bool stopping_ = false;
  std::mutex plan_mutex_;
  std::map<int64_t, std::shared_ptr<const Plan>> plans_;  ///< of the last two epochs asked for
  std::vector<std::thread> threads_;
};

}  // namespace blockstate::data
