// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/base/parallel.h"

namespace blockstate::test {

/// Sets the size of the pool for a scope.
class Threads {
 public:
  explicit Threads(int count) : before_(thread_count()) { set_thread_count(count); }
  ~Threads() { set_thread_count(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

}  // namespace blockstate::test
