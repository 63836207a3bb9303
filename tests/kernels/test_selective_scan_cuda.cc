// SPDX-License-Identifier: Apache-2.0
// The forward pass of the CUDA selective scan against the naive double loop: shapes at the edges of tiles, segments of
// time, records and padding, carried state, strides. Backward is in test_selective_scan_bwd_cuda.cc.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/selective_scan.h"
#include "tests/support/compare.h"
#include "tests/support/cuda_array.h"
#include "tests/support/fill.h"
#include "tests/support/naive_selective_scan.h"
#include "tests/support/tolerances.h"

namespace blockstate::test {
namespace {

constexpr int64_t kCheckpoint = kernels::cuda::kScanCheckpoint;
template <class T>
using Forward = kernels::SelectiveScanForward<T, float>;

struct Options {
  bool z = true;
  bool skip = true;
  bool bias = true;
  bool initial = true;
  double delta_shift = -1;  // dt is about softplus of this
  double largest_A = 4;
};

/// Values that T can hold where the kernel reads T.
template <class T>
ScanInputs<float> random_inputs(uint64_t key, ScanSize size, const Options& options = {}) {
  const auto [B, L, D, N] = size;
  ScanInputs<float> in;
  in.size = size;
  in.u = rounded_to<T>(random_normal<float>(key + 1, B * L * D));
  in.delta = rounded_to<T>(random_normal<float>(key + 2, B * L * D, 0.5, options.delta_shift / 2));
  in.A = random_uniform<float>(key + 3, D * N, -options.largest_A, -0.01 * options.largest_A);
  in.B = rounded_to<T>(random_normal<float>(key + 4, B * L * N));
  in.C = rounded_to<T>(random_normal<float>(key + 5, B * L * N));
  if (options.skip) {
    in.D = random_normal<float>(key + 7, D);
  }
  if (options.z) {
    in.z = rounded_to<T>(random_normal<float>(key + 8, B * L * D));
  }
  if (options.bias) {
    in.bias = random_normal<float>(key + 9, D, 0.3, options.delta_shift / 2);
  }
  if (options.initial) {
    in.initial = random_normal<float>(key + 10, B * D * N);
  }
  return in;
}

ScanInputs<double> in_double(const ScanInputs<float>& in) {
  ScanInputs<double> out;
  out.size = in.size;
  out.u = converted<double>(in.u);
  out.delta = converted<double>(in.delta);
  out.A = converted<double>(in.A);
  out.B = converted<double>(in.B);
  out.C = converted<double>(in.C);
  out.D = converted<double>(in.D);
  out.z = converted<double>(in.z);
  out.bias = converted<double>(in.bias);
  out.initial = converted<double>(in.initial);
  out.position = in.position;
  return out;
}

/// Rows of `width` elements, `gap` others after each, `offset` before the first: what an odd slice looks like.
template <class T>
class StridedRows {
 public:
  StridedRows(const std::vector<float>& values, int64_t batch, int64_t length, int64_t width, int64_t gap,
              int64_t offset)
      : batch_(batch), length_(length), width_(width), gap_(gap), offset_(offset), array_(spread(values)) {}
  View<T, 3> view() const {
    View<T, 3> view = make_view(array_.data() + offset_, batch_, length_, width_);
    view.stride[1] = width_ + gap_;
    view.stride[0] = length_ * view.stride[1];
    return view;
  }
  std::vector<float> values() const {
    const std::vector<float> all = as_float(array_.host());
    std::vector<float> out;
    for (int64_t row = 0; row < batch_ * length_; ++row) {
      const auto from = all.begin() + offset_ + row * (width_ + gap_);
      out.insert(out.end(), from, from + width_);
    }
    return out;
  }

 private:
  std::vector<T> spread(const std::vector<float>& values) const {
    std::vector<float> all(static_cast<size_t>(offset_ + batch_ * length_ * (width_ + gap_)), NAN);
    for (int64_t row = 0; row < batch_ * length_ && !values.empty(); ++row) {
      std::copy_n(values.begin() + row * width_, width_, all.begin() + offset_ + row * (width_ + gap_));
    }
    return stored_as<T>(all);
  }

  int64_t batch_, length_, width_, gap_, offset_;
  CudaArray<T> array_;
};

struct Results {
  std::vector<float> y, final, checkpoint;
};

/// `entry`: where the states before segments go, or (`known`) come from.
template <class T>
Results run(const ScanInputs<float>& in, int64_t gap = 0, int64_t offset = 0, bool training = true,
            View<float, 4> entry = {}, bool known = false) {
  const auto [B, L, D, N] = in.size;
  const StridedRows<T> u(in.u, B, L, D, gap, offset), delta(in.delta, B, L, D, gap, offset);
  const StridedRows<T> b(in.B, B, L, N, gap, offset), c(in.C, B, L, N, gap, offset);
  const StridedRows<T> z(in.z, B, L, D, gap, offset), y({}, B, L, D, gap, offset);
  const CudaArray<float> A(in.A), skip(in.D), bias(in.bias), initial(in.initial), final(B * D * N);
  const int64_t checkpoints = (L + kCheckpoint - 1) / kCheckpoint;
  const CudaArray<float> checkpoint(B * checkpoints * D * N);
  const CudaArray<int64_t> position(in.position);
  Forward<T> args;
  args.u = u.view();
  args.delta = delta.view();
  args.A = A.cview(D, N);
  args.B = b.view();
  args.C = c.view();
  args.y = y.view();
  args.final = final.view(B, D, N);
  if (!in.D.empty()) {
    args.D = skip.cview(D);
  }
  if (!in.z.empty()) {
    args.z = z.view();
  }
  if (!in.bias.empty()) {
    args.delta_bias = bias.cview(D);
  }
  if (!in.initial.empty()) {
    args.initial = initial.cview(B, D, N);
  }
  if (!in.position.empty()) {
    args.position = position.cview(B, L);
  }
  if (training) {
    args.checkpoint = checkpoint.view(B, checkpoints, D, N);
  }
  args.entry = entry;
  args.entry_known = known;
  kernels::cuda::selective_scan_forward(gpu(), args);
  kernels::cuda::synchronize(gpu());
  Results out{y.values(), final.host(), training ? checkpoint.host() : std::vector<float>()};
  return out;
}

/// The states before every kCheckpoint-th step, and the sums of their absolute terms: (B, checkpoints, D, N).
struct States {
  std::vector<double> value, scale;
};
States naive_checkpoints(const ScanInputs<double>& in) {
  const auto [B, L, D, N] = in.size;
  const int64_t count = (L + kCheckpoint - 1) / kCheckpoint;
  States out;
  out.value.resize(static_cast<size_t>(B * count * D * N));
  out.scale = out.value;
  for (int64_t i = 0; i < B * D * N; ++i) {
    const int64_t b = i / (D * N), d = i / N % D, n = i % N;
    double h = in.initial.empty() ? 0 : in.initial[i], scale = std::abs(h);
    for (int64_t t = 0; t < L; ++t) {
      const int64_t row = b * L + t;
      if (t % kCheckpoint == 0) {
        const int64_t at = ((b * count + t / kCheckpoint) * D + d) * N + n;
        out.value[at] = h;
        out.scale[at] = scale;
      }
      const int64_t position = in.position.empty() ? 1 : in.position[row];
      if (position >= 0) {
        const double dt = naive_softplus(in.delta[row * D + d] + (in.bias.empty() ? 0 : in.bias[d]));
        const double a = position == 0 ? 0 : std::exp(dt * in.A[d * N + n]);
        const double w = dt * in.B[row * N + n] * in.u[row * D + d];
        h = a * h + w;
        scale = a * scale + std::abs(w);
      }
    }
  }
  return out;
}

template <class T>
void check(const ScanInputs<float>& in, Tolerance tolerance, int64_t gap = 0, int64_t offset = 0) {
  const ScanInputs<double> inputs = in_double(in);
  const ScanResults<double> expected = naive_selective_scan(inputs);
  const Results found = run<T>(in, gap, offset);
  CHECK(compare_scaled("final", found.final, expected.final, expected.final_scale, tolerance));
  const States states = naive_checkpoints(inputs);
  CHECK(compare_scaled("checkpoint", found.checkpoint, states.value, states.scale, tolerance));
  if constexpr (std::is_same_v<T, float>) {
    CHECK(compare_scaled("y", found.y, expected.y, expected.y_scale, tolerance));
  } else {
    // The kernel rounds once, at the end.
    const std::vector<float> naive = rounded_to<T>(std::vector<float>(expected.y.begin(), expected.y.end()));
    CHECK(compare_twice_naive("y", found.y, expected.y, naive, tolerance.rel));
  }
  const Results again = run<T>(in, gap, offset, false);
  CHECK(same_bits("y without checkpoints", again.y, found.y));
  CHECK(same_bits("final without checkpoints", again.final, found.final));
}

void check_both(uint64_t key, ScanSize size, Tolerance tolerance, const Options& options = {}, int64_t gap = 0,
                int64_t offset = 0) {
  INFO("B " << size.B << " L " << size.L << " D " << size.D << " N " << size.N << " gap " << gap);
  check<float>(random_inputs<float>(key, size, options), tolerance, gap, offset);
  check<BFloat16>(random_inputs<BFloat16>(key + 50, size, options), tolerance, gap, offset);
}

// Records of changing lengths with padding between them, cut by the edges of tiles and segments.
void add_records(ScanInputs<float>& in) {
  in.position.resize(static_cast<size_t>(in.size.B * in.size.L));
  int64_t record = 0, at = 0, length = 1;
  for (int64_t& position : in.position) {
    if (at < length) {
      position = at++;
    } else if (record % 3 == 1 && at < length + record % 7) {
      position = -1;
      ++at;
    } else {
      ++record;
      at = 1;
      length = record % 5 == 4 ? 3000 : 1 + record * 17 % 97;
      position = 0;
    }
  }
}

// What a padded step holds must not matter.
void spoil_padding(ScanInputs<float>& in) {
  for (size_t row = 0; row < in.position.size(); ++row) {
    if (in.position[row] >= 0) {
      continue;
    }
    for (int64_t d = 0; d < in.size.D; ++d) {
      in.u[row * in.size.D + d] = in.delta[row * in.size.D + d] = NAN;
      in.z[row * in.size.D + d] = NAN;
    }
    for (int64_t n = 0; n < in.size.N; ++n) {
      in.B[row * in.size.N + n] = in.C[row * in.size.N + n] = NAN;
    }
  }
}

TEST_CASE("selective scan on CUDA equals the naive double loop", "[cuda]") {
  for (const int64_t L : {1, 2, 31, 32, 33, 257}) {
    for (const int64_t D : {1, 7, 32, 33, 96}) {
      for (const int64_t N : {1, 5, 8, 16}) {
        check_both(100, {L % 2 + 1, L, D, N}, kFloat32);
      }
    }
  }
}

TEST_CASE("selective scan on CUDA with any number of states", "[cuda]") {
  for (const int64_t N : {2, 3, 4, 9, 15, 17, 24, 31, 32, 33, 61, 64, 65, 100, 255, 256}) {
    check_both(200, {2, 70, 35, N}, kFloat32);
    check_both(250, {3, 1, 35, N}, kFloat32);
  }
}

TEST_CASE("selective scan on CUDA with every optional input absent in turn", "[cuda]") {
  for (int absent = 0; absent < 16; ++absent) {
    INFO("absent " << absent);
    const Options options{(absent & 1) == 0, (absent & 2) == 0, (absent & 4) == 0, (absent & 8) == 0};
    for (const int64_t L : {1, 67}) {
      check_both(300, {2, L, 19, 16}, kFloat32, options);
    }
    check_both(310, {1, 2305, 3, 6}, kFloat32LongScan, options);
  }
}

TEST_CASE("selective scan on CUDA reads and writes slices of wider rows", "[cuda]") {
  for (const int64_t gap : {1, 2, 3, 4, 8, 12}) {
    for (const int64_t offset : {0, 1, 2, 3, 4}) {
      check_both(400, {2, 65, 34, 16}, kFloat32, {}, gap, offset);
      check_both(450, {2, 1, 34, 16}, kFloat32, {}, gap, offset);
    }
  }
}

TEST_CASE("selective scan on CUDA cuts time into segments", "[cuda]") {
  // dt from long memory (states that outlive a segment) to short (those that forget in a few steps).
  for (const double shift : {-14.0, -8.0, -4.0, 0.0, 3.0}) {
    INFO("shift " << shift);
    check_both(500, {1, 5003, 5, 16}, kFloat32LongScan, {.delta_shift = shift});
    check_both(520, {2, 2816, 33, 2}, kFloat32LongScan, {.delta_shift = shift});
    check_both(540, {1, 2500, 3, 40}, kFloat32LongScan, {.delta_shift = shift});
  }
}

TEST_CASE("selective scan on CUDA takes the states before segments from a pass before", "[cuda]") {
  for (const ScanSize size : {ScanSize{1, 5003, 5, 16}, ScanSize{2, 2816, 33, 2}, ScanSize{1, 100, 3, 4}}) {
    INFO("L " << size.L);
    const ScanInputs<float> in = random_inputs<BFloat16>(560, size, {.delta_shift = -8});
    const Results plain = run<BFloat16>(in);
    const int64_t segments = kernels::cuda::scan_segments(gpu(), size.B, size.L, size.D);
    CHECK((segments > 1) == (size.L > 2048));
    const CudaArray<float> entry(segments * size.B * size.D * size.N);
    const View<float, 4> view = entry.view(segments, size.B, size.D, size.N);
    const auto same = [&](const Results& found) {
      return same_bits("y", found.y, plain.y) && same_bits("final", found.final, plain.final) &&
             same_bits("checkpoint", found.checkpoint, plain.checkpoint);
    };
    CHECK(same(run<BFloat16>(in, 0, 0, true, view)));
    CHECK(same(run<BFloat16>(in, 0, 0, true, view, true)));
    // They are read indeed: zeros give another result.
    const CudaArray<float> zeros(std::vector<float>(static_cast<size_t>(view.elements()), 0.0F));
    const Results wrong = run<BFloat16>(in, 0, 0, true, zeros.view(segments, size.B, size.D, size.N), true);
    CHECK((wrong.y == plain.y) == (segments == 1));
  }
  const ScanInputs<float> in = random_inputs<float>(570, {1, 5003, 5, 16});
  const CudaArray<float> some(5 * 16);
  CHECK_THROWS_WITH(run<float>(in, 0, 0, true, some.view(1, 1, 5, 16)),
                    Catch::Contains("selective_scan: entry must have shape"));
  CHECK_THROWS_WITH(run<float>(in, 0, 0, true, {}, true), Catch::Contains("no entry is there to be known"));
}

TEST_CASE("selective scan on CUDA with A = 0 is a running sum over all segments", "[cuda]") {
  ScanInputs<float> in = random_inputs<float>(600, {1, 4700, 18, 16}, {.delta_shift = -8});
  std::fill(in.A.begin(), in.A.end(), 0.0f);
  check<float>(in, kFloat32LongScan);
  // One state that never forgets beside fifteen that do at once.
  std::fill(in.A.begin(), in.A.end(), -1e30f);
  for (size_t i = 3; i < in.A.size(); i += 16) {
    in.A[i] = 0;
  }
  check<float>(in, kFloat32LongScan);
  std::fill(in.A.begin(), in.A.end(), -3e38f);
  check<float>(in, kFloat32LongScan);
}

TEST_CASE("selective scan on CUDA remembers a burst over segments that forget", "[cuda]") {
  ScanInputs<float> in = random_inputs<float>(650, {1, 5000, 5, 16}, {.delta_shift = 0});
  for (size_t i = 0; i < in.A.size(); ++i) {
    in.A[i] = -0.002f * static_cast<float>(1 + i % 16);
  }
  for (int64_t i = 100 * 5; i < 130 * 5; ++i) {
    in.u[static_cast<size_t>(i)] *= 1e12f;
  }
  check<float>(in, kFloat32LongScan);
}

// Channels whose steps are log-uniform in 0.001 .. 0.1, and decays of 1 to 16: what models are started with. Slow
// states outlive segments, fast ones do not.
ScanInputs<float> model_inputs(uint64_t key, ScanSize size) {
  ScanInputs<float> in = random_inputs<BFloat16>(key, size);
  const auto [B, L, D, N] = size;
  in.delta = rounded_to<BFloat16>(random_normal<float>(key + 2, B * L * D, 0.1, 0));
  in.bias = random_uniform<float>(key + 9, D, 0, 1);
  for (float& bias : in.bias) {
    const double dt = 0.001 * std::pow(100.0, static_cast<double>(bias));
    bias = static_cast<float>(dt + std::log(-std::expm1(-dt)));
  }
  for (size_t i = 0; i < in.A.size(); ++i) {
    in.A[i] = -static_cast<float>(i % static_cast<size_t>(N) + 1);
  }
  return in;
}

TEST_CASE("selective scan on CUDA with the step sizes of models", "[cuda]") {
  for (const ScanSize size : {ScanSize{1, 9001, 70, 16}, ScanSize{2, 4099, 33, 16}, ScanSize{1, 6000, 5, 3},
                              ScanSize{1, 5000, 34, 20}, ScanSize{1, 3000, 32, 33}}) {
    INFO("B " << size.B << " L " << size.L << " D " << size.D << " N " << size.N);
    ScanInputs<float> in = model_inputs(560, size);
    check<float>(in, kFloat32LongScan);
    check<BFloat16>(in, kFloat32LongScan);
    // One record starts, far from every edge: what was before it is seen nowhere after it.
    in.position.assign(static_cast<size_t>(size.B * size.L), 1);
    in.position[static_cast<size_t>(size.L / 2 + 77)] = 0;
    check<float>(in, kFloat32LongScan);
    add_records(in);
    check<BFloat16>(in, kFloat32LongScan);
  }
}

TEST_CASE("selective scan on CUDA where one warp's steps outweigh all others", "[cuda]") {
  // A state may rest on any eighth of a tile: inputs of 1e6 in 8 steps of every 32, in turn, and none elsewhere.
  for (const int64_t turn : {0, 8, 16, 24}) {
    INFO("turn " << turn);
    ScanInputs<float> in = model_inputs(580, {1, 5000, 34, 16});
    for (int64_t t = 0; t < in.size.L; ++t) {
      for (int64_t d = 0; d < in.size.D; ++d) {
        float& u = in.u[static_cast<size_t>(t * in.size.D + d)];
        u = (t - turn + 32) % 32 < 8 ? u * (1 << 20) : 0.0f;
      }
    }
    check<float>(in, kFloat32LongScan);
  }
}

TEST_CASE("selective scan on CUDA with packed records and padding", "[cuda]") {
  for (const int64_t L : {1, 5, 40, 300, 2700}) {
    for (const int64_t N : {3, 16, 20}) {
      INFO("L " << L << " N " << N);
      ScanInputs<float> in = random_inputs<float>(700, {3, L, L > 1024 ? 3 : 34, N}, {.delta_shift = -6});
      add_records(in);
      check<float>(in, L > 1024 ? kFloat32LongScan : kFloat32);
      const Results clean = run<float>(in);
      spoil_padding(in);
      const Results spoiled = run<float>(in);
      CHECK(same_bits("y with spoiled padding", spoiled.y, clean.y));
      CHECK(same_bits("final with spoiled padding", spoiled.final, clean.final));
      ScanInputs<float> low = random_inputs<BFloat16>(750, {3, L, in.size.D, N}, {.delta_shift = -6});
      low.position = in.position;
      check<BFloat16>(low, L > 1024 ? kFloat32LongScan : kFloat32);
      // A row of padding alone, and one whose first step is not a record's.
      std::fill(low.position.begin(), low.position.begin() + L, -1);
      std::fill(low.position.begin() + L, low.position.begin() + 2 * L, 7);
      check<BFloat16>(low, L > 1024 ? kFloat32LongScan : kFloat32);
    }
  }
}

// The records' positions matter: without them the results differ.
TEST_CASE("selective scan on CUDA: starts of records change the result", "[cuda]") {
  ScanInputs<float> in = random_inputs<float>(800, {1, 3000, 34, 16}, {.delta_shift = -6});
  const Results one_record = run<float>(in);
  add_records(in);
  CHECK_FALSE(same_bits("y", run<float>(in).y, one_record.y));
}

TEST_CASE("selective scan on CUDA: two halves with carried state equal one pass", "[cuda]") {
  const ScanInputs<float> in = random_inputs<float>(900, {1, 5000, 21, 16}, {.delta_shift = -8});
  const Results whole = run<float>(in);
  for (const int64_t cut : {1, 255, 2304, 4999}) {
    const auto part = [&](const std::vector<float>& rows, int64_t width, bool second) {
      return second ? std::vector<float>(rows.begin() + cut * width, rows.end())
                    : std::vector<float>(rows.begin(), rows.begin() + cut * width);
    };
    ScanInputs<float> halves[2] = {in, in};
    Results found[2];
    for (const int half : {0, 1}) {
      ScanInputs<float>& input = halves[half];
      input.size.L = half == 0 ? cut : 5000 - cut;
      input.u = part(in.u, 21, half == 1);
      input.delta = part(in.delta, 21, half == 1);
      input.z = part(in.z, 21, half == 1);
      input.B = part(in.B, 16, half == 1);
      input.C = part(in.C, 16, half == 1);
      if (half == 1) {
        input.initial = found[0].final;
      }
      found[half] = run<float>(input);
    }
    std::vector<float> y = found[0].y;
    y.insert(y.end(), found[1].y.begin(), found[1].y.end());
    const ScanResults<double> reference = naive_selective_scan(in_double(in));
    CHECK(compare_scaled("y", y, std::vector<double>(whole.y.begin(), whole.y.end()), reference.y_scale,
                         kFloat32LongScan));
    CHECK(compare_scaled("final", found[1].final, std::vector<double>(whole.final.begin(), whole.final.end()),
                         reference.final_scale, kFloat32LongScan));
  }
}

TEST_CASE("selective scan on CUDA overwrites its initial state where asked", "[cuda]") {
  for (const int64_t L : {1, 50, 5000}) {
    const ScanInputs<float> in = random_inputs<float>(1000, {1, L, 33, 16}, {.delta_shift = -8});
    const Results expected = run<float>(in);
    const CudaArray<float> u(in.u), delta(in.delta), A(in.A), B(in.B), C(in.C), D(in.D), z(in.z), bias(in.bias);
    const CudaArray<float> state(in.initial), y(L * 33);
    Forward<float> args;
    args.u = u.cview(1, L, 33);
    args.delta = delta.cview(1, L, 33);
    args.z = z.cview(1, L, 33);
    args.A = A.cview(33, 16);
    args.B = B.cview(1, L, 16);
    args.C = C.cview(1, L, 16);
    args.D = D.cview(33);
    args.delta_bias = bias.cview(33);
    args.initial = state.cview(1, 33, 16);
    args.final = state.view(1, 33, 16);
    args.y = y.view(1, L, 33);
    kernels::cuda::selective_scan_forward(gpu(), args);
    kernels::cuda::synchronize(gpu());
    CHECK(same_bits("y", y.host(), expected.y));
    CHECK(same_bits("final", state.host(), expected.final));
  }
}

TEST_CASE("selective scan on CUDA gives the same bits on a second run", "[cuda]") {
  const ScanInputs<float> in = random_inputs<BFloat16>(1100, {1, 9000, 70, 16}, {.delta_shift = -8});
  const Results first = run<BFloat16>(in);
  for (int repeat = 0; repeat < 3; ++repeat) {
    const Results again = run<BFloat16>(in);
    CHECK(same_bits("y", again.y, first.y));
    CHECK(same_bits("final", again.final, first.final));
    CHECK(same_bits("checkpoint", again.checkpoint, first.checkpoint));
  }
}

TEST_CASE("selective scan on CUDA takes empty chunks and refuses wrong shapes", "[cuda]") {
  const ScanInputs<float> none = random_inputs<float>(1200, {2, 0, 3, 2});
  CHECK(same_bits("final", run<float>(none).final, none.initial));
  run<float>(random_inputs<float>(1210, {0, 3, 3, 2}));
  Forward<float> args;
  const CudaArray<float> some(64);
  args.y = some.view(1, 2, 3);
  args.u = some.cview(1, 2, 3);
  args.delta = some.cview(1, 2, 3);
  args.A = some.cview(3, 4);
  args.B = some.cview(1, 2, 4);
  args.C = some.cview(1, 4, 2);
  CHECK_THROWS_WITH(kernels::cuda::selective_scan_forward(gpu(), args),
                    "selective_scan: C must have shape (1, 2, 4), found (1, 4, 2)");
}

TEST_CASE("selective scan on CUDA reaches rows beyond 2^31 elements", "[cuda][large]") {
  constexpr int64_t kFar = (int64_t{1} << 31) / 2 + 24690;
  const ScanInputs<float> in = random_inputs<BFloat16>(1300, {2, 3, 4, 2}, {.z = false});
  const Results expected = run<BFloat16>(in);
  const CudaArray<BFloat16> delta(stored_as<BFloat16>(in.delta)), B(stored_as<BFloat16>(in.B));
  const CudaArray<BFloat16> C(stored_as<BFloat16>(in.C));
  const CudaArray<float> A(in.A), D(in.D), bias(in.bias), initial(in.initial);
  const int64_t bytes = (2 * kFar + 64) * 2;
  std::byte* far[2];
  for (std::byte*& memory : far) {
    memory = kernels::cuda::take_memory(gpu(), bytes);
    REQUIRE(memory != nullptr);
  }
  Forward<BFloat16> args;
  const auto far_view = [&](std::byte* memory) {
    View<BFloat16, 3> view = make_view(reinterpret_cast<BFloat16*>(memory), 2, 3, 4);
    view.stride[0] = 17;
    view.stride[1] = kFar;
    return view;
  };
  const std::vector<BFloat16> u = stored_as<BFloat16>(in.u);
  const View<BFloat16, 3> far_u = far_view(far[0]), far_y = far_view(far[1]);
  for (int64_t row = 0; row < 6; ++row) {
    kernels::cuda::copy_to_device(gpu(), far_u.data + row / 3 * 17 + row % 3 * kFar, u.data() + row * 4, 8);
  }
  args.u = far_u;
  args.y = far_y;
  args.delta = delta.cview(2, 3, 4);
  args.A = A.cview(4, 2);
  args.B = B.cview(2, 3, 2);
  args.C = C.cview(2, 3, 2);
  args.D = D.cview(4);
  args.delta_bias = bias.cview(4);
  args.initial = initial.cview(2, 4, 2);
  kernels::cuda::selective_scan_forward(gpu(), args);
  std::vector<BFloat16> y(24);
  for (int64_t row = 0; row < 6; ++row) {
    kernels::cuda::copy_to_host(gpu(), y.data() + row * 4, far_y.data + row / 3 * 17 + row % 3 * kFar, 8);
  }
  CHECK(same_bits("y", as_float(y), expected.y));
  for (std::byte* memory : far) {
    kernels::cuda::give_memory(gpu(), memory);
  }
}

}  // namespace
}  // namespace blockstate::test
