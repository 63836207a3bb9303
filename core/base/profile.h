// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>

namespace blockstate::profile {

/// What one kind of op cost since start().
struct Cost {
  int64_t calls = 0;
  double seconds = 0;
  double bytes = 0;  ///< of the tensors that went in and came out, each counted once
  double flops = 0;  ///< where the op says how many
};

/// Turns measuring on. The ops of one thread run one after the other, so the time between two marks belongs to the
/// later one. Off by default; a mark then costs a branch.
/// `wait` (may be empty) is called before the clock is read: it waits for work that a device still does.
void start(std::function<void()> wait = {});
/// Turns measuring off and returns the costs by op; backward passes are under "NAME backward".
std::map<std::string, Cost> stop();
bool enabled();

/// Time since the last mark goes to `name`.
void mark(const std::string& name, double bytes);
/// Floating-point operations of the op that is running.
void add_flops(double flops);

}  // namespace blockstate::profile
