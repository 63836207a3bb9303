// SPDX-License-Identifier: Apache-2.0
// The selective scan's backward on CUDA against the naive reference's gradients (the CPU's, in double) and against its
// own identities. The checkpoint comes from the CPU's forward: every fourth of its own.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/kernels/selective_scan_case.h"
#include "tests/support/cuda_array.h"

namespace blockstate::test {
namespace {

constexpr int64_t kTile = kernels::cuda::kScanCheckpoint;

/// The states before every kTile-th step, by the CPU in float32.
std::vector<float> checkpoint_of(const ScanInputs<float>& in) {
  const auto [B, L, D, N] = in.size;
  const int64_t fine = (L + kernels::kScanCheckpoint - 1) / kernels::kScanCheckpoint;
  const int64_t coarse = (L + kTile - 1) / kTile;
  std::vector<float> all(static_cast<size_t>(B * fine * D * N)), y(in.u.size());
  kernels::SelectiveScanForward<float> args;
  args.y = make_view(y.data(), B, L, D);
  args.checkpoint = make_view(all.data(), B, fine, D, N);
  args.u = make_view(in.u.data(), B, L, D);
  args.delta = make_view(in.delta.data(), B, L, D);
  args.A = make_view(in.A.data(), D, N);
  args.B = make_view(in.B.data(), B, L, N);
  args.C = make_view(in.C.data(), B, L, N);
  const auto optional = [](const std::vector<float>& values, auto view) {
    return values.empty() ? decltype(view){} : view;
  };
  args.D = optional(in.D, make_view(in.D.data(), D));
  args.delta_bias = optional(in.bias, make_view(in.bias.data(), D));
  args.initial = optional(in.initial, make_view(in.initial.data(), B, D, N));
  if (!in.position.empty()) {
    args.position = make_view(in.position.data(), B, L);
  }
  kernels::cpu::selective_scan_forward(args);
  std::vector<float> every_fourth;
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t k = 0; k < coarse; ++k) {
      const auto from = all.begin() + (b * fine + k * (kTile / kernels::kScanCheckpoint)) * D * N;
      every_fourth.insert(every_fourth.end(), from, from + D * N);
    }
  }
  return every_fourth;
}

/// A (B, L, width) or smaller array on the GPU whose innermost rows are `gap` elements apart, the gaps NaN.
template <class T, int R>
class Rows {
 public:
  Rows(const int64_t (&size)[R], int64_t gap, const std::vector<float>& values) : Rows(size, gap, &values) {}
  Rows(const int64_t (&size)[R], int64_t gap) : Rows(size, gap, nullptr) {}

  View<T, R> view() const { return view_; }
  View<const T, R> cview() const { return view_; }
  std::vector<float> values() const { return as_float(rows(array_->host())); }
  std::vector<T> stored() const { return rows(array_->host()); }
  /// The gaps still hold what they held.
  bool gaps_untouched() const {
    const std::vector<T> all = array_->host();
    const int64_t width = view_.size[R - 1], pitch = width + gap_;
    for (size_t i = 0; i < all.size(); ++i) {
      if (static_cast<int64_t>(i) % pitch >= width && !std::isnan(static_cast<float>(all[i]))) {
        return false;
      }
    }
    return true;
  }

 private:
  Rows(const int64_t (&size)[R], int64_t gap, const std::vector<float>* values) : gap_(gap) {
    int64_t stride = 1;
    for (int i = R - 1; i >= 0; --i) {
      view_.size[i] = size[i];
      view_.stride[i] = stride;
      stride *= size[i] + (i == R - 1 ? gap : 0);
    }
    if (values == nullptr) {
      array_ = std::make_unique<CudaArray<T>>(stride);
    } else {
      std::vector<T> all(static_cast<size_t>(stride), static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
      const int64_t width = size[R - 1];
      for (size_t i = 0; i < values->size(); ++i) {
        const int64_t at = static_cast<int64_t>(i);
        all[static_cast<size_t>(at / width * (width + gap) + at % width)] = static_cast<T>((*values)[i]);
      }
      array_ = std::make_unique<CudaArray<T>>(all);
    }
    view_.data = array_->data();
  }
  std::vector<T> rows(const std::vector<T>& all) const {
    std::vector<T> out;
    const int64_t width = view_.size[R - 1];
    for (int64_t i = 0; i < view_.elements(); ++i) {
      out.push_back(all[static_cast<size_t>(i / width * (width + gap_) + i % width)]);
    }
    return out;
  }

  int64_t gap_;
  View<T, R> view_;
  std::unique_ptr<CudaArray<T>> array_;
};

/// Backward on the GPU. Gradients of parameters start from `start`.
template <class T>
ScanResults<float> run_cuda(const ScanInputs<float>& in, int64_t gap = 0, float start = 0) {
  const auto [B, L, D, N] = in.size;
  const int64_t tiles = (L + kTile - 1) / kTile;
  const auto filled = [&](int64_t count) { return std::vector<float>(static_cast<size_t>(count), start); };
  Rows<T, 3> u({B, L, D}, gap, in.u), delta({B, L, D}, gap, in.delta), dy({B, L, D}, gap, in.dy);
  Rows<T, 3> b({B, L, N}, gap, in.B), c({B, L, N}, gap, in.C);
  Rows<T, 3> z({B, L, D}, gap, in.z.empty() ? in.u : in.z);
  Rows<T, 3> du({B, L, D}, gap), ddelta({B, L, D}, gap), dz({B, L, D}, gap), dB({B, L, N}, gap), dC({B, L, N}, gap);
  Rows<float, 2> A({D, N}, gap, in.A), dA({D, N}, gap, filled(D * N));
  Rows<float, 4> checkpoint({B, tiles, D, N}, gap, checkpoint_of(in));
  Rows<float, 3> dinitial({B, D, N}, gap);
  Rows<float, 3> dfinal({B, D, N}, gap, in.dfinal.empty() ? std::vector<float>(B * D * N) : in.dfinal);
  Rows<float, 1> skip({D}, 0, in.D.empty() ? filled(D) : in.D), bias({D}, 0, in.bias.empty() ? filled(D) : in.bias);
  Rows<float, 1> dD({D}, 0, filled(D)), dbias({D}, 0, filled(D));
  const CudaArray<int64_t> position(in.position);

  kernels::SelectiveScanBackward<T, float> args;
  kernels::SelectiveScanForward<T, float>& f = args.forward;
  f.u = u.cview();
  f.delta = delta.cview();
  f.A = A.cview();
  f.B = b.cview();
  f.C = c.cview();
  f.checkpoint = checkpoint.view();
  args.du = du.view();
  args.ddelta = ddelta.view();
  args.dA = dA.view();
  args.dB = dB.view();
  args.dC = dC.view();
  args.dinitial = dinitial.view();
  args.dy = dy.cview();
  if (!in.D.empty()) {
    f.D = skip.cview();
    args.dD = dD.view();
  }
  if (!in.z.empty()) {
    f.z = z.cview();
    args.dz = dz.view();
  }
  if (!in.bias.empty()) {
    f.delta_bias = bias.cview();
    args.ddelta_bias = dbias.view();
  }
  if (!in.dfinal.empty()) {
    args.dfinal = dfinal.cview();
  }
  if (!in.position.empty()) {
    f.position = position.cview(B, L);
  }
  kernels::cuda::selective_scan_backward(gpu(), args);
  kernels::cuda::synchronize(gpu());

  ScanResults<float> out;
  out.du = du.values();
  out.ddelta = ddelta.values();
  out.dA = dA.values();
  out.dB = dB.values();
  out.dC = dC.values();
  out.dinitial = dinitial.values();
  CHECK(du.gaps_untouched());
  CHECK(ddelta.gaps_untouched());
  CHECK(dz.gaps_untouched());
  CHECK(dB.gaps_untouched());
  CHECK(dC.gaps_untouched());
  if (!in.D.empty()) {
    out.dD = dD.values();
  }
  if (!in.z.empty()) {
    out.dz = dz.values();
  }
  if (!in.bias.empty()) {
    out.dbias = dbias.values();
  }
  return out;
}

void check_gradients(const ScanResults<float>& found, const ScanResults<double>& expected, Tolerance tolerance) {
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

void check_same_bits(const ScanResults<float>& found, const ScanResults<float>& expected) {
  CHECK(same_bits("du", found.du, expected.du));
  CHECK(same_bits("ddelta", found.ddelta, expected.ddelta));
  CHECK(same_bits("dA", found.dA, expected.dA));
  CHECK(same_bits("dB", found.dB, expected.dB));
  CHECK(same_bits("dC", found.dC, expected.dC));
  CHECK(same_bits("dD", found.dD, expected.dD));
  CHECK(same_bits("dz", found.dz, expected.dz));
  CHECK(same_bits("ddelta_bias", found.dbias, expected.dbias));
  CHECK(same_bits("dinitial", found.dinitial, expected.dinitial));
}

/// Sums over more than a thousand (row, step) pairs: rounding grows with their root, as on the CPU.
Tolerance tolerance_for(const ScanSize& size) { return size.B * size.L > 1024 ? Tolerance{5e-5, 1e-6} : kFloat32; }

void check_float(const ScanInputs<float>& in, int64_t gap = 0) {
  INFO("B " << in.size.B << " L " << in.size.L << " D " << in.size.D << " N " << in.size.N << " gap " << gap);
  check_gradients(run_cuda<float>(in, gap), train_scan(converted_scan<double>(in)), tolerance_for(in.size));
}

/// The inputs as bfloat16 holds them; parameters stay float.
ScanInputs<float> rounded_scan(ScanInputs<float> in) {
  for (auto field : {&ScanInputs<float>::u, &ScanInputs<float>::delta, &ScanInputs<float>::B, &ScanInputs<float>::C,
                     &ScanInputs<float>::z, &ScanInputs<float>::dy}) {
    in.*field = rounded_to<BFloat16>(in.*field);
  }
  return in;
}

void check_bfloat16(const ScanInputs<float>& inputs, int64_t gap = 0) {
  const ScanInputs<float> in = rounded_scan(inputs);
  INFO("bfloat16 B " << in.size.B << " L " << in.size.L << " D " << in.size.D << " N " << in.size.N << " gap " << gap);
  const ScanResults<double> expected = train_scan(converted_scan<double>(in));
  const ScanResults<float> found = run_cuda<BFloat16>(in, gap);
  const auto check = [](const char* name, const std::vector<float>& left, const std::vector<double>& right) {
    CHECK(compare_twice_naive(name, left, right, rounded_to<BFloat16>(converted<float>(right)), 1e-5));
  };
  check("du", found.du, expected.du);
  check("ddelta", found.ddelta, expected.ddelta);
  check("dz", found.dz, expected.dz);
  check("dB", found.dB, expected.dB);
  check("dC", found.dC, expected.dC);
  const Tolerance tolerance = tolerance_for(in.size);
  CHECK(compare_gradient("dA", found.dA, expected.dA, tolerance));
  CHECK(compare_gradient("dD", found.dD, expected.dD, tolerance));
  CHECK(compare_gradient("ddelta_bias", found.dbias, expected.dbias, tolerance));
  CHECK(compare_gradient("dinitial", found.dinitial, expected.dinitial, tolerance));
}

// dt * |A| over all steps stays small, so that what is carried still counts at the other end.
const ScanOptions kLongMemory{.delta_shift = -6, .largest_A = 1};

TEST_CASE("selective_scan backward on CUDA equals the reference at every edge of its tiles", "[cuda]") {
  const int64_t L = GENERATE(1, 2, 7, 8, 9, 63, kTile - 1, kTile, kTile + 1, 3 * kTile + 17);
  for (const int64_t D : {1, 7, 64, 65, 130}) {
    check_float(random_scan<float>(100, {L % 2 + 1, L, D, 16}, D == 65 ? kLongMemory : ScanOptions{}), L % 3);
    check_bfloat16(random_scan<float>(110, {L % 2 + 1, L, D, 16}), L % 3 * 4);
  }
}

TEST_CASE("selective_scan backward on CUDA takes any number of states", "[cuda]") {
  for (const int64_t N : {1, 3, 5, 15, 17, 33, 64, 256}) {
    check_float(random_scan<float>(200, {2, kTile + 5, 37, N}), N % 2);
    check_bfloat16(random_scan<float>(210, {1, 19, 64, N}), N % 2);
  }
}

TEST_CASE("selective_scan backward on CUDA over thousands of steps and wide rows", "[cuda]") {
  check_float(random_scan<float>(300, {1, 5003, 96, 16}, kLongMemory));
  check_float(random_scan<float>(310, {1, 5003, 70, 16}));
  check_float(random_scan<float>(320, {3, 300, 777, 16}));
  check_bfloat16(random_scan<float>(330, {2, 2048, 256, 16}, kLongMemory));
}

TEST_CASE("selective_scan backward on CUDA with every optional input absent in turn", "[cuda]") {
  for (int absent = 0; absent < 16; ++absent) {
    INFO("absent " << absent);
    const ScanOptions options{(absent & 1) == 0, (absent & 2) == 0, (absent & 4) == 0, (absent & 8) == 0,
                              (absent & 1) == 0};
    check_float(random_scan<float>(400, {2, 70, 72, 16}, options));
    check_float(random_scan<float>(410, {2, 21, 5, 6}, options), 1);
  }
}

TEST_CASE("selective_scan backward on CUDA with records and padding", "[cuda]") {
  for (const ScanSize size :
       {ScanSize{2, kTile + 40, 67, 16}, ScanSize{1, 3 * kTile, 64, 16}, ScanSize{2, 90, 20, 18}}) {
    ScanInputs<float> in = random_scan<float>(500, size, kLongMemory);
    in.position.resize(static_cast<size_t>(size.B * size.L));
    for (size_t i = 0; i < in.position.size(); ++i) {
      // Records of 44 steps, then three steps of padding, which hold NaN.
      const int64_t phase = static_cast<int64_t>(i + i / 200) % 47;
      in.position[i] = phase < 44 ? phase : -1;
    }
    check_float(in, 1);
    for (size_t i = 0; i < in.position.size(); ++i) {
      in.position[i] = i % 3 == 1 ? 0 : static_cast<int64_t>(i);
    }
    check_float(in);
    check_bfloat16(in);
  }
}

TEST_CASE("selective_scan backward on CUDA reads nothing of padded steps", "[cuda]") {
  const ScanSize size{2, kTile + 9, 64, 16};
  ScanInputs<float> in = random_scan<float>(600, size);
  in.position.resize(static_cast<size_t>(size.B * size.L));
  for (size_t i = 0; i < in.position.size(); ++i) {
    in.position[i] = i % 5 == 3 || i % size.L > kTile ? -1 : static_cast<int64_t>(i);
  }
  const ScanResults<float> clean = run_cuda<float>(in);
  for (auto field : {&ScanInputs<float>::u, &ScanInputs<float>::delta, &ScanInputs<float>::B, &ScanInputs<float>::C,
                     &ScanInputs<float>::z, &ScanInputs<float>::dy}) {
    std::vector<float>& values = in.*field;
    const size_t width = values.size() / in.position.size();
    for (size_t i = 0; i < values.size(); ++i) {
      if (in.position[i / width] < 0) {
        values[i] = std::numeric_limits<float>::quiet_NaN();
      }
    }
  }
  const ScanResults<float> poisoned = run_cuda<float>(in);
  check_same_bits(poisoned, clean);
  for (auto field : {&ScanResults<float>::du, &ScanResults<float>::ddelta, &ScanResults<float>::dz,
                     &ScanResults<float>::dB, &ScanResults<float>::dC}) {
    const std::vector<float>& values = poisoned.*field;
    const size_t width = values.size() / in.position.size();
    bool zero = true;
    for (size_t i = 0; i < values.size(); ++i) {
      zero = zero && (in.position[i / width] >= 0 || values[i] == 0);
    }
    CHECK(zero);
  }
  in.position.assign(in.position.size(), -1);
  CHECK(same_bits("dinitial", run_cuda<float>(in).dinitial, in.dfinal));
}

template <class T>
std::vector<T> steps_of(const std::vector<T>& rows, const ScanSize& size, int64_t t0, int64_t t1) {
  const int64_t width = static_cast<int64_t>(rows.size()) / (size.B * size.L);
  std::vector<T> out;
  for (int64_t b = 0; b < size.B; ++b) {
    out.insert(out.end(), rows.begin() + (b * size.L + t0) * width, rows.begin() + (b * size.L + t1) * width);
  }
  return out;
}

ScanInputs<float> part_of(const ScanInputs<float>& in, int64_t t0, int64_t t1) {
  ScanInputs<float> out = in;
  out.size.L = t1 - t0;
  for (auto field : {&ScanInputs<float>::u, &ScanInputs<float>::delta, &ScanInputs<float>::B, &ScanInputs<float>::C,
                     &ScanInputs<float>::z, &ScanInputs<float>::dy}) {
    out.*field = steps_of(in.*field, in.size, t0, t1);
  }
  return out;
}

TEST_CASE("selective_scan backward on CUDA in two chunks with carry equals one pass", "[cuda]") {
  const ScanInputs<float> in = random_scan<float>(700, {2, 2 * kTile + 31, 64, 16}, kLongMemory);
  const ScanResults<float> whole = run_cuda<float>(in);
  for (const int64_t cut : {int64_t{1}, int64_t{100}, kTile, kTile + 13}) {
    for (const bool carried : {true, false}) {
      ScanInputs<float> left = part_of(in, 0, cut), right = part_of(in, cut, in.size.L);
      right.initial = infer_scan(left).final;
      const ScanResults<float> second = run_cuda<float>(right);
      left.dfinal = carried ? second.dinitial : std::vector<float>();
      const ScanResults<float> first = run_cuda<float>(left);
      const auto same = [&](const char* name, std::vector<float> ScanResults<float>::*field, int64_t t0, int64_t t1,
                            const ScanResults<float>& part) {
        return compare_gradient(name, part.*field, steps_of(whole.*field, in.size, t0, t1), kFloat32);
      };
      CHECK(same("du", &ScanResults<float>::du, cut, in.size.L, second));
      CHECK(same("dB", &ScanResults<float>::dB, cut, in.size.L, second));
      if (carried) {
        CHECK(same("du", &ScanResults<float>::du, 0, cut, first));
        CHECK(same("ddelta", &ScanResults<float>::ddelta, 0, cut, first));
        CHECK(same("dz", &ScanResults<float>::dz, 0, cut, first));
        CHECK(same("dB", &ScanResults<float>::dB, 0, cut, first));
        CHECK(same("dC", &ScanResults<float>::dC, 0, cut, first));
        CHECK(compare_gradient("dinitial", first.dinitial, whole.dinitial, kFloat32));
      } else {
        CHECK_FALSE(same("du", &ScanResults<float>::du, 0, cut, first));
        CHECK_FALSE(compare_gradient("dinitial", first.dinitial, whole.dinitial, kFloat32));
      }
    }
  }
}

TEST_CASE("selective_scan backward on CUDA gives the same bits on a second run", "[cuda]") {
  for (const ScanSize size : {ScanSize{1, 5000, 64, 16}, ScanSize{5, 700, 200, 16}, ScanSize{2, 300, 50, 20}}) {
    const ScanInputs<float> in = random_scan<float>(800, size);
    check_same_bits(run_cuda<float>(in), run_cuda<float>(in));
    check_same_bits(run_cuda<BFloat16>(in), run_cuda<BFloat16>(in));
  }
}

TEST_CASE("selective_scan backward on CUDA adds to the gradients of parameters", "[cuda]") {
  const ScanInputs<float> in = random_scan<float>(900, {2, 50, 20, 16});
  const ScanResults<float> zero = run_cuda<float>(in), five = run_cuda<float>(in, 0, 5.0f);
  const auto check = [](const std::vector<float>& from_zero, const std::vector<float>& from_five) {
    REQUIRE(from_zero.size() == from_five.size());
    for (size_t i = 0; i < from_zero.size(); ++i) {
      CHECK(from_five[i] == Approx(from_zero[i] + 5).epsilon(1e-6).margin(1e-6));
    }
  };
  check(zero.dA, five.dA);
  check(zero.dD, five.dD);
  check(zero.dbias, five.dbias);
  for (auto field : {&ScanResults<float>::du, &ScanResults<float>::ddelta, &ScanResults<float>::dz,
                     &ScanResults<float>::dB, &ScanResults<float>::dC, &ScanResults<float>::dinitial}) {
    CHECK(same_bits("an overwritten gradient", five.*field, zero.*field));
  }
}

TEST_CASE("selective_scan backward on CUDA with A = 0 and with A very negative", "[cuda]") {
  for (const float value : {0.0f, -1e4f, -1e20f, -1e38f}) {
    INFO("A " << value);
    ScanInputs<float> in = random_scan<float>(1000, {1, 90, 33, 16});
    std::fill(in.A.begin(), in.A.end(), value);
    check_float(in);
  }
}

TEST_CASE("selective_scan backward on CUDA takes empty chunks and refuses wrong shapes", "[cuda]") {
  const ScanInputs<float> none = random_scan<float>(1100, {2, 0, 3, 2});
  CHECK(same_bits("dinitial", run_cuda<float>(none).dinitial, none.dfinal));
  run_cuda<float>(random_scan<float>(1110, {0, 4, 3, 2}));

  kernels::SelectiveScanBackward<float, float> args;
  const CudaArray<float> any(64);
  args.forward.u = any.cview(1, 2, 3);
  args.forward.delta = any.cview(1, 2, 3);
  args.forward.A = any.cview(3, 4);
  args.forward.B = any.cview(1, 2, 4);
  args.forward.C = any.cview(1, 4, 2);
  CHECK_THROWS_WITH(kernels::cuda::selective_scan_backward(gpu(), args),
                    "selective_scan: C must have shape (1, 2, 4), found (1, 4, 2)");
}

}  // namespace
}  // namespace blockstate::test
