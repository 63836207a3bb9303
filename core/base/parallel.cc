// SPDX-License-Identifier: Apache-2.0
#include "core/base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/base/check.h"

namespace blockstate {
namespace {

using Body = std::function<void(int64_t, int64_t)>;

int available_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) {
    return std::max(1, CPU_COUNT(&set));
  }
  return std::max(1u, std::thread::hardware_concurrency());
}

thread_local bool inside_body = false;

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this] { work(); });
    }
  }

  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) {
      worker.join();
    }
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(int64_t count, int64_t grain, const Body& body) {
    std::lock_guard one_caller(callers_);
    {
      std::lock_guard lock(mutex_);
      body_ = &body;
      count_ = count;
      grain_ = grain;
      next_ = 0;
      error_ = nullptr;
      active_ = static_cast<int>(workers_.size());
      ++generation_;
    }
    wake_.notify_all();
    take_pieces();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return active_ == 0; });
    if (error_) {
      std::rethrow_exception(error_);
    }
  }

 private:
  void take_pieces() {
    inside_body = true;
    for (;;) {
      const int64_t begin = next_.fetch_add(grain_);
      if (begin >= count_) {
        break;
      }
      try {
        (*body_)(begin, std::min(count_, begin + grain_));
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!error_) {
          error_ = std::current_exception();
        }
      }
    }
    inside_body = false;
  }

  void work() {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return stopping_ || generation_ != seen; });
        if (stopping_) {
          return;
        }
        seen = generation_;
      }
      take_pieces();
      std::lock_guard lock(mutex_);
      if (--active_ == 0) {
        done_.notify_one();
      }
    }
  }

  std::vector<std::thread> workers_;
  std::mutex callers_;  // loader threads may call too: one job at a time
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  bool stopping_ = false;
  uint64_t generation_ = 0;
  int active_ = 0;
  const Body* body_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  std::atomic<int64_t> next_ = 0;
  std::exception_ptr error_;
};

std::unique_ptr<Pool>& pool() {
  static std::unique_ptr<Pool> instance = std::make_unique<Pool>(available_cpus());
  return instance;
}

}  // namespace

void parallel_for(int64_t count, int64_t grain, const Body& body) {
  if (count <= 0) {
    return;
  }
  grain = std::max<int64_t>(1, grain);
  if (inside_body || count <= grain || pool()->threads() == 1) {
    for (int64_t begin = 0; begin < count; begin += grain) {
      body(begin, std::min(count, begin + grain));
    }
    return;
  }
  pool()->run(count, grain, body);
}

int thread_count() { return pool()->threads(); }

void set_thread_count(int threads) {
  require(threads >= 1, "threads must be at least 1, found ", threads);
  if (threads != pool()->threads()) {
    pool() = std::make_unique<Pool>(threads);
  }
}

}  // namespace blockstate
