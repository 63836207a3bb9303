// SPDX-License-Identifier: Apache-2.0
// Shapes of range attention, checked once a call.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/view_check.h"

namespace blockstate::kernels {

template <class T, class P>
void check_attention(const AttentionForward<T, P>& args) {
  const char* op = "attention";
  const int64_t B = args.q.size[0], L = args.q.size[1], H = args.q.size[2], width = args.q.size[3];
  const int64_t J = args.k.size[1];
  check_view(op, "q", args.q, {B, L, H, width});
  check_view(op, "k", args.k, {B, J, H, width});
  check_view(op, "v", args.v, {B, J, H, width});
  check_view(op, "y", args.y, {B, L, H, width});
  check_view(op, "begin", args.begin, {B, L});
  check_view(op, "end", args.end, {B, L});
  check_optional_view(op, "log_sum_exp", args.log_sum_exp, {B, H, L});
  check_optional_view(op, "bias", args.bias, {H, args.bias.size[1]});
  require(!args.bias || args.bias.size[1] > 0, op, ": bias must hold one distance or more for each head");
  require(unit_stride(args.q) && unit_stride(args.k) && unit_stride(args.v) && unit_stride(args.y), op,
          " wants q, k, v and y with neighbouring channels side by side in memory");
}

template <class T, class P>
void check_attention(const AttentionBackward<T, P>& args) {
  const char* op = "attention backward";
  const AttentionForward<T, P>& f = args.forward;
  const int64_t B = f.q.size[0], L = f.q.size[1], H = f.q.size[2], width = f.q.size[3], J = f.k.size[1];
  check_attention(f);
  require(f.log_sum_exp || f.q.elements() == 0, op, " needs the log_sum_exp that the forward pass writes");
  check_view(op, "dq", args.dq, {B, L, H, width});
  check_view(op, "dk", args.dk, {B, J, H, width});
  check_view(op, "dv", args.dv, {B, J, H, width});
  check_view(op, "dy", args.dy, {B, L, H, width});
  check_optional_view(op, "dbias", args.dbias, {H, f.bias.size[1]});
  require(!args.dbias || f.bias, op, " is asked for the gradient of a bias that is absent");
  require(unit_stride(args.dq) && unit_stride(args.dk) && unit_stride(args.dv) && unit_stride(args.dy), op,
          " wants dq, dk, dv and dy with neighbouring channels side by side in memory");
}

}  // namespace blockstate::kernels
