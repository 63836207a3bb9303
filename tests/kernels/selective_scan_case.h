// SPDX-License-Identifier: Apache-2.0
// Random scans, and a run of the kernel on guarded, optionally strided buffers.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/selective_scan.h"
#include "tests/support/compare.h"
#include "tests/support/fill.h"
#include "tests/support/guard_buffer.h"
#include "tests/support/naive_selective_scan.h"

namespace blockstate::test {

struct ScanOptions {
  bool z = true;
  bool skip = true;
  bool bias = true;
  bool initial = true;
  bool dfinal = true;
  double delta_shift = -1;  // dt is about softplus of this
  double largest_A = 4;
};

template <class T>
ScanInputs<T> random_scan(uint64_t key, ScanSize size, const ScanOptions& options = {}) {
  const auto [B, L, D, N] = size;
  ScanInputs<T> in;
  in.size = size;
  in.u = random_normal<T>(key + 1, B * L * D);
  in.delta = random_normal<T>(key + 2, B * L * D, 0.5, options.delta_shift / 2);
  in.A = random_uniform<T>(key + 3, D * N, -options.largest_A, -0.01 * options.largest_A);
  in.B = random_normal<T>(key + 4, B * L * N);
  in.C = random_normal<T>(key + 5, B * L * N);
  in.dy = random_normal<T>(key + 6, B * L * D);
  if (options.skip) {
    in.D = random_normal<T>(key + 7, D);
  }
  if (options.z) {
    in.z = random_normal<T>(key + 8, B * L * D);
  }
  if (options.bias) {
    in.bias = random_normal<T>(key + 9, D, 0.3, options.delta_shift / 2);
  }
  if (options.initial) {
    in.initial = random_normal<T>(key + 10, B * D * N);
  }
  if (options.dfinal) {
    in.dfinal = random_normal<T>(key + 11, B * D * N);
  }
  return in;
}

template <class To, class From>
ScanInputs<To> converted_scan(const ScanInputs<From>& in) {
  return {in.size,
          converted<To>(in.u),
          converted<To>(in.delta),
          converted<To>(in.A),
          converted<To>(in.B),
          converted<To>(in.C),
          converted<To>(in.D),
          converted<To>(in.z),
          converted<To>(in.bias),
          converted<To>(in.initial),
          converted<To>(in.dy),
          converted<To>(in.dfinal),
          in.position};
}

/// The buffers of one forward and backward call. Inputs and outputs have `gap` poisoned elements after every row.
template <class T>
class ScanRunner {
 public:
  explicit ScanRunner(const ScanInputs<T>& in, int64_t gap = 0)
      : in_(in),
        B_(in.size.B),
        L_(in.size.L),
        D_(in.size.D),
        N_(in.size.N),
        tiles_((L_ + kernels::kScanCheckpoint - 1) / kernels::kScanCheckpoint),
        u({B_, L_, D_}, gap),
        delta({B_, L_, D_}, gap),
        b({B_, L_, N_}, gap),
        c({B_, L_, N_}, gap),
        z({B_, L_, D_}, gap),
        dy({B_, L_, D_}, gap),
        y({B_, L_, D_}, gap),
        du({B_, L_, D_}, gap),
        ddelta({B_, L_, D_}, gap),
        dz({B_, L_, D_}, gap),
        dB({B_, L_, N_}, gap),
        dC({B_, L_, N_}, gap),
        A({D_, N_}, gap),
        dA({D_, N_}, gap),
        initial({B_, D_, N_}, gap),
        final({B_, D_, N_}, gap),
        dinitial({B_, D_, N_}, gap),
        dfinal({B_, D_, N_}, gap),
        checkpoint({B_, tiles_, D_, N_}, gap),
        skip({D_}),
        bias({D_}),
        dD({D_}),
        dbias({D_}) {
    u.assign(in.u);
    delta.assign(in.delta);
    A.assign(in.A);
    b.assign(in.B);
    c.assign(in.C);
    dy.assign(in.dy);
    forward_.y = y.view();
    forward_.final = final.view();
    forward_.u = u.cview();
    forward_.delta = delta.cview();
    forward_.A = A.cview();
    forward_.B = b.cview();
    forward_.C = c.cview();
    forward_.D = take(skip, in.D);
    forward_.z = take(z, in.z);
    forward_.delta_bias = take(bias, in.bias);
    forward_.initial = take(initial, in.initial);
    if (!in.position.empty()) {
      forward_.position = make_view(in_.position.data(), B_, L_);
    }
  }

  /// Without a checkpoint, as in inference.
  void infer(ScanResults<T>& out) {
    kernels::cpu::selective_scan_forward(forward_);
    collect_forward(out);
  }

  void train(ScanResults<T>& out) {
    forward_.checkpoint = checkpoint.view();
    kernels::cpu::selective_scan_forward(forward_);
    REQUIRE(checkpoint.fully_written("checkpoint"));
    collect_forward(out);
    const kernels::SelectiveScanBackward<T> args = backward_args();
    kernels::cpu::selective_scan_backward(args);
    out.du = written(du, "du");
    out.ddelta = written(ddelta, "ddelta");
    out.dA = written(dA, "dA");
    out.dB = written(dB, "dB");
    out.dC = written(dC, "dC");
    out.dinitial = written(dinitial, "dinitial");
    if (args.dD) {
      out.dD = written(dD, "dD");
    }
    if (args.ddelta_bias) {
      out.dbias = written(dbias, "ddelta_bias");
    }
    if (args.dz) {
      out.dz = written(dz, "dz");
    }
  }

  /// Another backward (after train) into gradients of parameters that hold something.
  void backward_into(std::vector<T>& dA_values, std::vector<T>& dD_values, std::vector<T>& dbias_values) {
    kernels::SelectiveScanBackward<T> args = backward_args();
    args.dA = make_view(dA_values.data(), D_, N_);
    args.dD = make_view(dD_values.data(), D_);
    args.ddelta_bias = make_view(dbias_values.data(), D_);
    kernels::cpu::selective_scan_backward(args);
  }

 private:
  kernels::SelectiveScanBackward<T> backward_args() {
    kernels::SelectiveScanBackward<T> args;
    args.forward = forward_;
    args.du = du.view();
    args.ddelta = ddelta.view();
    args.dB = dB.view();
    args.dC = dC.view();
    args.dy = dy.cview();
    args.dfinal = take(dfinal, in_.dfinal);
    args.dinitial = dinitial.view();
    args.dA = zeroed(dA);
    if (!in_.D.empty()) {
      args.dD = zeroed(dD);
    }
    if (!in_.bias.empty()) {
      args.ddelta_bias = zeroed(dbias);
    }
    if (!in_.z.empty()) {
      args.dz = dz.view();
    }
    return args;
  }

  template <int R>
  static View<const T, R> take(GuardBuffer<T, R>& buffer, const std::vector<T>& values) {
    if (values.empty()) {
      return {};
    }
    buffer.assign(values);
    return buffer.cview();
  }
  template <int R>
  static View<T, R> zeroed(GuardBuffer<T, R>& buffer) {
    buffer.assign(std::vector<T>(static_cast<size_t>(buffer.view().elements()), T{0}));
    return buffer.view();
  }
  template <int R>
  static std::vector<T> written(const GuardBuffer<T, R>& buffer, const char* name) {
    REQUIRE(buffer.fully_written(name));
    return buffer.elements();
  }
  void collect_forward(ScanResults<T>& out) {
    out.y = written(y, "y");
    out.final = written(final, "final");
  }

  const ScanInputs<T>& in_;
  int64_t B_, L_, D_, N_, tiles_;
  GuardBuffer<T, 3> u, delta, b, c, z, dy, y, du, ddelta, dz, dB, dC;
  GuardBuffer<T, 2> A, dA;
  GuardBuffer<T, 3> initial, final, dinitial, dfinal;
  GuardBuffer<T, 4> checkpoint;
  GuardBuffer<T, 1> skip, bias, dD, dbias;
  kernels::SelectiveScanForward<T> forward_;
};

template <class T>
ScanResults<T> train_scan(const ScanInputs<T>& in, int64_t gap = 0) {
  ScanResults<T> out;
  ScanRunner<T>(in, gap).train(out);
  return out;
}

template <class T>
ScanResults<T> infer_scan(const ScanInputs<T>& in, int64_t gap = 0) {
  ScanResults<T> out;
  ScanRunner<T>(in, gap).infer(out);
  return out;
}

/// Gradients are sums of signed terms: the largest of a tensor is the measure of the rounding in all of them.
template <class Found, class Expected>
Comparison compare_gradient(const std::string& name, const std::vector<Found>& found,
                            const std::vector<Expected>& expected, Tolerance tolerance) {
  double largest = 0;
  for (const Expected& value : expected) {
    largest = std::max(largest, std::abs(static_cast<double>(value)));
  }
  return compare_scaled(name, found, expected, std::vector<double>(expected.size(), largest), tolerance);
}

/// y, final and every gradient agree.
template <class Found, class Expected>
void check_results(const ScanResults<Found>& found, const ScanResults<Expected>& expected, Tolerance tolerance) {
  CHECK(compare_gradient("y", found.y, expected.y, tolerance));
  CHECK(compare_gradient("final", found.final, expected.final, tolerance));
  CHECK(compare_gradient("du", found.du, expected.du, tolerance));
  CHECK(compare_gradient("ddelta", found.ddelta, expected.ddelta, tolerance));
  CHECK(compare_gradient("dA", found.dA, expected.dA, tolerance));
  CHECK(compare_gradient("dB", found.dB, expected.dB, tolerance));
  CHECK(compare_gradient("dC", found.dC, expected.dC, tolerance));
  CHECK(compare_gradient("dD", found.dD, expected.dD, tolerance));
  CHECK(compare_gradient("dz", found.dz, expected.dz, tolerance));
  CHECK(compare_gradient("ddelta_bias", found.dbias, expected.dbias, tolerance));
  CHECK(compare_gradient("dinitial", found.dinitial, expected.dinitial, tolerance));
}

}  // namespace blockstate::test
