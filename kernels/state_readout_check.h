// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/state_readout.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

template <class T, class U>
void check_state_readout(const char* op, const char* y_name, View<U, 3> y, View<const T, 3> state,
                         View<const T, 3> weight) {
  const int64_t B = state.size[0], D = state.size[1], Q = state.size[2], S = weight.size[0];
  check_view(op, "state", state, {B, D, Q});
  check_view(op, "weight", weight, {S, D, Q});
  check_view(op, y_name, y, {B, S, D});
  require(state.contiguous() && weight.contiguous(), op, ": state and weight must be contiguous");
}

template <class T>
void check_state_readout_backward(View<T, 3> dstate, View<T, 3> dweight, View<const T, 3> dy, View<const T, 3> state,
                                  View<const T, 3> weight) {
  const char* op = "state_readout_backward";
  check_state_readout(op, "dy", dy, state, weight);
  check_view(op, "dstate", dstate, {state.size[0], state.size[1], state.size[2]});
  check_view(op, "dweight", dweight, {weight.size[0], weight.size[1], weight.size[2]});
  require(dstate.contiguous() && dweight.contiguous(), op, ": dstate and dweight must be contiguous");
}

}  // namespace blockstate::kernels
