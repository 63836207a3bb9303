// SPDX-License-Identifier: Apache-2.0
#include "core/base/profile.h"

#include <chrono>

namespace blockstate::profile {
namespace {

struct State {
  bool enabled = false;
  std::function<void()> wait;
  double last = 0;
  double pending_flops = 0;
  std::map<std::string, Cost> costs;
};
thread_local State state;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

void start(std::function<void()> wait) {
  state = {};
  state.enabled = true;
  state.wait = std::move(wait);
  if (state.wait) {
    state.wait();
  }
  state.last = now();
}

std::map<std::string, Cost> stop() {
  state.enabled = false;
  return std::move(state.costs);
}

bool enabled() { return state.enabled; }

void mark(const std::string& name, double bytes) {
  if (!state.enabled) {
    return;
  }
  if (state.wait) {
    state.wait();
  }
  const double time = now();
  Cost& cost = state.costs[name];
  ++cost.calls;
  cost.seconds += time - state.last;
  cost.bytes += bytes;
  cost.flops += state.pending_flops;
  state.pending_flops = 0;
  state.last = time;
}

void add_flops(double flops) {
  if (state.enabled) {
    state.pending_flops += flops;
  }
}

}  // namespace blockstate::profile
