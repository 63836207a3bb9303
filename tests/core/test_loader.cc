// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <set>
#include <thread>

#include "core/base/check.h"
#include "core/base/random.h"
#include "core/data/loader.h"

namespace blockstate::data {
namespace {

/// Example i is named "i" and has length 1 + (a pseudo-random number below 100) tokens i.
class Numbered : public Dataset {
 public:
  explicit Numbered(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }
  int64_t length(int64_t index) const override {
    return 1 + static_cast<int64_t>(mix_key(7, static_cast<uint64_t>(index)) % 100);
  }
  Example get(int64_t index) const override {
    ++gets;
    if (delay) {
      std::this_thread::sleep_for(std::chrono::microseconds(mix_key(3, static_cast<uint64_t>(index)) % 300));
    }
    require(bad.count(index) == 0, "record ", index, " is damaged");
    Example example;
    example.name = std::to_string(index);
    example.tokens.assign(static_cast<size_t>(length(index)), index);
    return example;
  }

  std::set<int64_t> bad;
  bool delay = false;
  mutable std::atomic<int64_t> gets = 0;

 private:
  int64_t size_;
};

LoaderOptions options_of(int64_t batch_size, int threads = 2) {
  LoaderOptions options;
  options.batch_size = batch_size;
  options.seed = 5;
  options.threads = threads;
  return options;
}

using Names = std::vector<std::string>;

std::vector<Names> take(Loader& loader, int64_t count) {
  std::vector<Names> taken;
  for (int64_t i = 0; i < count; ++i) {
    taken.push_back(loader.next()->names);
  }
  return taken;
}

double padded_share(const Dataset& dataset, const std::vector<std::vector<int64_t>>& plan) {
  int64_t steps = 0;
  int64_t cells = 0;
  for (const auto& batch : plan) {
    int64_t longest = 0;
    for (const int64_t index : batch) {
      steps += dataset.length(index);
      longest = std::max(longest, dataset.length(index));
    }
    cells += longest * static_cast<int64_t>(batch.size());
  }
  return 1 - static_cast<double>(steps) / static_cast<double>(cells);
}

TEST_CASE("batches do not depend on threads and read-ahead", "[cpu]") {
  auto dataset = std::make_shared<Numbered>(53);
  dataset->delay = true;
  Loader reference(dataset, options_of(4, 0));
  const auto wanted = take(reference, 40);
  for (const int threads : {1, 2, 5}) {
    for (const int64_t prefetch : {1, 3, 16}) {
      LoaderOptions options = options_of(4, threads);
      options.prefetch = prefetch;
      Loader loader(dataset, options);
      CHECK(take(loader, 40) == wanted);
      CHECK(loader.position() == 40);
    }
  }
  LoaderOptions other = options_of(4);
  other.seed = 6;
  Loader loader(dataset, other);
  CHECK(take(loader, 40) != wanted);
}

TEST_CASE("an epoch holds every example once, in an order of its own", "[cpu]") {
  const bool bucket = GENERATE(true, false);
  const int64_t size = GENERATE(1, 3, 4, 401, 1000);
  auto dataset = std::make_shared<Numbered>(size);
  LoaderOptions options = options_of(4);
  options.bucket = bucket;
  Loader loader(dataset, options);
  REQUIRE(loader.batches_per_epoch() == (size + 3) / 4);
  std::vector<std::vector<Names>> epochs;
  for (int epoch = 0; epoch < 3; ++epoch) {
    CHECK(loader.epoch() == epoch);
    epochs.push_back(take(loader, loader.batches_per_epoch()));
    std::multiset<std::string> seen;
    int64_t short_batches = 0;
    for (const Names& names : epochs.back()) {
      seen.insert(names.begin(), names.end());
      short_batches += names.size() < 4 ? 1 : 0;
    }
    std::multiset<std::string> all;
    for (int64_t i = 0; i < size; ++i) {
      all.insert(std::to_string(i));
    }
    CHECK(seen == all);
    CHECK(short_batches == (size % 4 != 0 ? 1 : 0));
  }
  if (size > 100) {
    CHECK(epochs[0] != epochs[1]);
    CHECK(epochs[1] != epochs[2]);
  }
}

TEST_CASE("seek goes on as if the batches before had been taken", "[cpu]") {
  auto dataset = std::make_shared<Numbered>(30);
  Loader reference(dataset, options_of(4));
  const auto all = take(reference, 60);
  for (const int64_t position : {0, 1, 7, 8, 9, 33, 59}) {
    Loader loader(dataset, options_of(4, position % 2 == 0 ? 0 : 3));
    loader.seek(position);
    CHECK(take(loader, 60 - position) == std::vector<Names>(all.begin() + position, all.end()));
    loader.seek(2);  // back again, with batches read ahead that must be dropped
    CHECK(loader.position() == 2);
    CHECK(take(loader, 5) == std::vector<Names>(all.begin() + 2, all.begin() + 7));
  }
  Loader loader(dataset, options_of(4));
  CHECK_THROWS_WITH(loader.seek(-1), "a loader cannot go to batch -1");
}

TEST_CASE("buckets reduce padding and keep the batches of an epoch mixed", "[cpu]") {
  const Numbered dataset(4000);
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    lengths.push_back(dataset.length(i));
  }
  LoaderOptions options = options_of(8);
  const auto bucketed = plan_epoch(lengths, dataset.size(), 0, options);
  options.bucket = false;
  const auto plain = plan_epoch({}, dataset.size(), 0, options);
  CHECK(padded_share(dataset, plain) > 0.35);
  CHECK(padded_share(dataset, bucketed) < 0.03);
  // Batch order is shuffled: neighbouring batches' lengths rise about half of the time.
  int64_t rises = 0;
  for (size_t i = 1; i < bucketed.size(); ++i) {
    rises += lengths[bucketed[i].front()] > lengths[bucketed[i - 1].front()] ? 1 : 0;
  }
  CHECK(std::abs(static_cast<double>(rises) / static_cast<double>(bucketed.size()) - 0.5) < 0.1);
}

TEST_CASE("a sequential pass is in order and ends", "[cpu]") {
  const int threads = GENERATE(0, 1, 3);
  LoaderOptions options = options_of(4, threads);
  options.sequential = true;
  options.prefetch = 8;
  Loader loader(std::make_shared<Numbered>(10), options);
  for (int pass = 0; pass < 2; ++pass) {
    CHECK(take(loader, 3) == std::vector<Names>{{"0", "1", "2", "3"}, {"4", "5", "6", "7"}, {"8", "9"}});
    CHECK_FALSE(loader.next());
    CHECK_FALSE(loader.next());
    CHECK(loader.position() == 3);
    loader.seek(0);
  }
}

TEST_CASE("an error of an example comes at its batch", "[cpu]") {
  const int threads = GENERATE(0, 1, 4);
  auto dataset = std::make_shared<Numbered>(12);
  dataset->bad = {5, 8};
  dataset->delay = true;
  LoaderOptions options = options_of(2, threads);
  options.sequential = true;
  options.prefetch = 6;
  Loader loader(dataset, options);
  CHECK(take(loader, 2) == std::vector<Names>{{"0", "1"}, {"2", "3"}});
  CHECK_THROWS_WITH(loader.next(), "record 5 is damaged");
  CHECK(loader.position() == 3);
  CHECK(take(loader, 1) == std::vector<Names>{{"6", "7"}});
  CHECK_THROWS_WITH(loader.next(), "record 8 is damaged");
  CHECK(take(loader, 1) == std::vector<Names>{{"10", "11"}});
  CHECK_FALSE(loader.next());
}

TEST_CASE("reading ahead stays within its bound", "[cpu]") {
  auto dataset = std::make_shared<Numbered>(1000);
  LoaderOptions options = options_of(2, 3);
  options.prefetch = 4;
  Loader loader(dataset, options);
  loader.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK(dataset->gets <= 2 * 5);
  CHECK(dataset->gets > 2);
}

TEST_CASE("a loader refuses what it cannot do", "[cpu]") {
  CHECK_THROWS_WITH(Loader(std::make_shared<Numbered>(0), options_of(4)),
                    "the data set is empty: no example is left to load");
  CHECK_THROWS_WITH(Loader(std::make_shared<Numbered>(3), options_of(0)), "a batch of 0 examples, wanted at least 1");
}

}  // namespace
}  // namespace blockstate::data
