// SPDX-License-Identifier: Apache-2.0
// What the selective scan carries from chunk to chunk: k chunks equal one pass, forward and backward; records in one
// row equal records on their own; padding changes nothing. Each comparison is shown to fail when the carry is wrong.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/kernels/selective_scan_case.h"

namespace blockstate::test {
namespace {

constexpr int64_t kTile = kernels::kScanCheckpoint;

// Steps [t0, t1) of a (B, L, width) array.
template <class T>
std::vector<T> slice(const std::vector<T>& rows, int64_t batch, int64_t length, int64_t t0, int64_t t1) {
  std::vector<T> out;
  const int64_t width = length == 0 ? 0 : static_cast<int64_t>(rows.size()) / (batch * length);
  for (int64_t b = 0; b < batch; ++b) {
    const auto row = rows.begin() + b * length * width;
    out.insert(out.end(), row + t0 * width, row + t1 * width);
  }
  return out;
}

template <class T>
void put_slice(std::vector<T>& rows, const std::vector<T>& part, int64_t batch, int64_t length, int64_t t0,
               int64_t t1) {
  const int64_t steps = t1 - t0;
  const int64_t width = steps == 0 ? 0 : static_cast<int64_t>(part.size()) / (batch * steps);
  rows.resize(static_cast<size_t>(batch * length * width));
  for (int64_t b = 0; b < batch; ++b) {
    std::copy_n(part.begin() + b * steps * width, steps * width, rows.begin() + (b * length + t0) * width);
  }
}

template <class T>
ScanInputs<T> slice_scan(const ScanInputs<T>& in, int64_t t0, int64_t t1) {
  const auto [B, L, D, N] = in.size;
  ScanInputs<T> out = in;
  out.size.L = t1 - t0;
  for (auto field : {&ScanInputs<T>::u, &ScanInputs<T>::delta, &ScanInputs<T>::B, &ScanInputs<T>::C, &ScanInputs<T>::z,
                     &ScanInputs<T>::dy}) {
    out.*field = slice(in.*field, B, L, t0, t1);
  }
  out.position = slice(in.position, B, L, t0, t1);
  return out;
}

enum class Carry { kRight, kZeroed, kOneStepEarly, kNoGradient };

template <class T>
void add(std::vector<T>& sum, const std::vector<T>& part) {
  sum.resize(part.size());
  for (size_t i = 0; i < part.size(); ++i) {
    sum[i] += part[i];
  }
}

// Forward over chunks that end at `ends`, keeping the carries; then backward over them in reverse.
template <class T>
ScanResults<T> run_in_chunks(const ScanInputs<T>& in, const std::vector<int64_t>& ends, Carry carry) {
  const auto [B, L, D, N] = in.size;
  std::vector<ScanInputs<T>> chunks;
  ScanResults<T> all;
  all.final = in.initial;
  int64_t begin = 0;
  for (const int64_t end : ends) {
    chunks.push_back(slice_scan(in, begin, end));
    chunks.back().initial = all.final;
    if (carry == Carry::kZeroed && begin > 0) {
      std::fill(chunks.back().initial.begin(), chunks.back().initial.end(), T{0});
    }
    if (carry == Carry::kOneStepEarly && begin > 0) {
      ScanInputs<T> shorter = slice_scan(in, 0, begin - 1);
      chunks.back().initial = infer_scan(shorter).final;
    }
    all.final = infer_scan(chunks.back()).final;
    begin = end;
  }
  all.dinitial = in.dfinal;
  for (size_t i = chunks.size(); i-- > 0;) {
    begin = i == 0 ? 0 : ends[i - 1];
    chunks[i].dfinal = all.dinitial;
    if (carry == Carry::kNoGradient && i + 1 < chunks.size()) {
      chunks[i].dfinal.clear();
    }
    const ScanResults<T> part = train_scan(chunks[i]);
    for (auto field : {&ScanResults<T>::y, &ScanResults<T>::du, &ScanResults<T>::ddelta, &ScanResults<T>::dB,
                       &ScanResults<T>::dC, &ScanResults<T>::dz}) {
      put_slice(all.*field, part.*field, B, L, begin, ends[i]);
    }
    for (auto field : {&ScanResults<T>::dA, &ScanResults<T>::dD, &ScanResults<T>::dbias}) {
      add(all.*field, part.*field);
    }
    all.dinitial = part.dinitial;
  }
  return all;
}

// dt * |A| over all steps stays below 1, so that what is carried still counts at the end.
const ScanOptions kLongMemory{.delta_shift = -6, .largest_A = 1};

std::vector<int64_t> random_splits(uint64_t key, int64_t length, int64_t chunks) {
  std::vector<int64_t> ends = random_ids(key, chunks - 1, 1, length);
  ends.push_back(length);
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  return ends;
}

Tolerance times(Tolerance tolerance, double factor) { return {tolerance.rel * factor, tolerance.abs * factor}; }

template <class T>
void check_law(const ScanInputs<T>& in, Tolerance tolerance) {
  const ScanResults<T> whole = train_scan(in);
  for (uint64_t key = 0; key < 4; ++key) {
    const std::vector<int64_t> ends = random_splits(key, in.size.L, 2 + static_cast<int64_t>(key) * 2);
    check_results(run_in_chunks(in, ends, Carry::kRight), whole, tolerance);
  }
}

TEST_CASE("selective scan in chunks with carry equals one pass", "[cpu]") {
  check_law(random_scan<double>(2000, {2, 2 * kTile + 31, 19, 5}, kLongMemory), kFloat64);
  check_law(random_scan<float>(2100, {2, 2 * kTile + 31, 19, 16}, kLongMemory), kFloat32);
}

TEST_CASE("selective scan in chunks with records and padding equals one pass", "[cpu]") {
  ScanInputs<double> in = random_scan<double>(2200, {2, 2 * kTile + 31, 18, 3}, kLongMemory);
  for (int64_t i = 0; i < in.size.B * in.size.L; ++i) {
    const int64_t phase = (i + i / 50) % 47;
    in.position.push_back(phase < 44 ? phase : -1);
  }
  check_law(in, kFloat64);
}

TEST_CASE("selective scan with a wrong carry is noticed", "[cpu]") {
  const ScanInputs<float> in = random_scan<float>(2300, {2, 90, 17, 4}, kLongMemory);
  const ScanResults<float> whole = train_scan(in);
  const Tolerance wide = times(kFloat32, 10);
  for (const Carry carry : {Carry::kZeroed, Carry::kOneStepEarly}) {
    const ScanResults<float> wrong = run_in_chunks(in, {40, 90}, carry);
    CHECK_FALSE(compare_gradient("y", wrong.y, whole.y, wide));
    CHECK_FALSE(compare_gradient("final", wrong.final, whole.final, wide));
    CHECK_FALSE(compare_gradient("dA", wrong.dA, whole.dA, wide));
  }
  const ScanResults<float> cut = run_in_chunks(in, {40, 90}, Carry::kNoGradient);
  CHECK(compare_gradient("y", cut.y, whole.y, kFloat32));
  CHECK_FALSE(compare_gradient("du", cut.du, whole.du, wide));
  CHECK_FALSE(compare_gradient("dA", cut.dA, whole.dA, wide));
  CHECK_FALSE(compare_gradient("dinitial", cut.dinitial, whole.dinitial, wide));
}

TEST_CASE("selective scan one step at a time equals one pass", "[cpu]") {
  ScanInputs<float> in = random_scan<float>(2400, {2, kTile + 9, 37, 16}, kLongMemory);
  const bool packed = GENERATE(false, true);
  for (int64_t i = 0; packed && i < in.size.B * in.size.L; ++i) {
    in.position.push_back(i % 20 == 19 ? -1 : i % 20);
  }
  const ScanResults<float> whole = infer_scan(in);
  std::vector<float> y;
  std::vector<float> state = in.initial;
  for (int64_t t = 0; t < in.size.L; ++t) {
    ScanInputs<float> step = slice_scan(in, t, t + 1);
    step.initial = state;
    const ScanResults<float> out = infer_scan(step, t % 2);
    put_slice(y, out.y, in.size.B, in.size.L, t, t + 1);
    state = out.final;
  }
  CHECK(compare_gradient("y", y, whole.y, kFloat32));
  CHECK(compare_gradient("final", state, whole.final, kFloat32));
}

TEST_CASE("selective scan writes the new state over the old one", "[cpu]") {
  for (const int64_t L : {int64_t{1}, kTile + 2}) {
    ScanInputs<float> in = random_scan<float>(2500, {2, L, 18, 6});
    const ScanResults<float> apart = infer_scan(in);
    std::vector<float> y(in.u.size());
    kernels::SelectiveScanForward<float> args;
    args.y = make_view(y.data(), 2, L, 18);
    args.u = make_view(in.u.data(), 2, L, 18);
    args.delta = make_view(in.delta.data(), 2, L, 18);
    args.z = make_view(in.z.data(), 2, L, 18);
    args.A = make_view(in.A.data(), 18, 6);
    args.B = make_view(in.B.data(), 2, L, 6);
    args.C = make_view(in.C.data(), 2, L, 6);
    args.D = make_view(in.D.data(), 18);
    args.delta_bias = make_view(in.bias.data(), 18);
    args.initial = make_view(in.initial.data(), 2, 18, 6);
    args.final = make_view(in.initial.data(), 2, 18, 6);
    kernels::cpu::selective_scan_forward(args);
    CHECK(same_bits("y", y, apart.y));
    CHECK(same_bits("final", in.initial, apart.final));
  }
}

TEST_CASE("selective scan keeps packed records apart", "[cpu]") {
  // Three records of 30, 1 and 70 steps in one row equal three calls; gradients too.
  const std::vector<int64_t> ends{30, 31, 101};
  ScanInputs<double> packed = random_scan<double>(2600, {1, 101, 9, 4}, {.initial = false});
  int64_t begin = 0;
  for (const int64_t end : ends) {
    for (int64_t t = begin; t < end; ++t) {
      packed.position.push_back(t - begin);
    }
    begin = end;
  }
  const ScanResults<double> found = train_scan(packed);
  ScanResults<double> apart;
  begin = 0;
  for (const int64_t end : ends) {
    ScanInputs<double> record = slice_scan(packed, begin, end);
    record.position.clear();
    if (end != 101) {
      record.dfinal.clear();
    }
    const ScanResults<double> part = train_scan(record);
    for (auto field : {&ScanResults<double>::y, &ScanResults<double>::du, &ScanResults<double>::ddelta,
                       &ScanResults<double>::dB, &ScanResults<double>::dC, &ScanResults<double>::dz}) {
      put_slice(apart.*field, part.*field, 1, 101, begin, end);
    }
    for (auto field : {&ScanResults<double>::dA, &ScanResults<double>::dD, &ScanResults<double>::dbias}) {
      add(apart.*field, part.*field);
    }
    apart.final = part.final;
    begin = end;
  }
  apart.dinitial.assign(9 * 4, 0.0);  // the row begins with a record: what came before does not count
  check_results(found, apart, kFloat64);
  packed.position[30] = 30;  // the second record's start forgotten
  CHECK_FALSE(compare_gradient("y", train_scan(packed).y, apart.y, times(kFloat64, 10)));
}

TEST_CASE("selective scan passes its state through padding", "[cpu]") {
  // Valid steps spread among padding, whose inputs are NaN, equal the same steps side by side.
  const int64_t L = kTile + 40;
  const ScanInputs<double> dense = random_scan<double>(2700, {1, L / 2, 5, 3});
  ScanInputs<double> spread = dense;
  spread.size.L = L;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto spread_rows = [&](std::vector<double>& rows, int64_t width) {
    std::vector<double> out(static_cast<size_t>(L * width), nan);
    for (int64_t t = 0; t < L / 2; ++t) {
      std::copy_n(rows.begin() + t * width, width, out.begin() + (2 * t + 1) * width);
    }
    rows = out;
  };
  for (auto field :
       {&ScanInputs<double>::u, &ScanInputs<double>::delta, &ScanInputs<double>::z, &ScanInputs<double>::dy}) {
    spread_rows(spread.*field, 5);
  }
  spread_rows(spread.B, 3);
  spread_rows(spread.C, 3);
  for (int64_t t = 0; t < L; ++t) {
    spread.position.push_back(t % 2 == 0 ? -1 : t);
  }
  const ScanResults<double> found = train_scan(spread);
  const ScanResults<double> expected = train_scan(dense);
  for (int64_t t = 0; t < L; ++t) {
    const std::vector<double> row = slice(found.y, 1, L, t, t + 1);
    const std::vector<double> gradient = slice(found.dB, 1, L, t, t + 1);
    const bool valid = t % 2 == 1;
    CHECK(compare("y", row, valid ? slice(expected.y, 1, L / 2, t / 2, t / 2 + 1) : std::vector<double>(5), kFloat64));
    CHECK(compare("dB", gradient, valid ? slice(expected.dB, 1, L / 2, t / 2, t / 2 + 1) : std::vector<double>(3),
                  kFloat64));
    if (!valid) {
      CHECK(slice(found.du, 1, L, t, t + 1) == std::vector<double>(5));
      CHECK(slice(found.dC, 1, L, t, t + 1) == std::vector<double>(3));
    }
  }
  CHECK(compare("final", found.final, expected.final, kFloat64));
  CHECK(compare("dA", found.dA, expected.dA, kFloat64));
  CHECK(compare("dinitial", found.dinitial, expected.dinitial, kFloat64));
}

TEST_CASE("selective scan hands the state of a row without a valid step on", "[cpu]") {
  for (const int64_t L : {int64_t{1}, int64_t{3}}) {
    ScanInputs<float> in = random_scan<float>(2800, {2, L, 17, 5});
    in.position.assign(static_cast<size_t>(2 * L), -1);
    const ScanResults<float> out = train_scan(in);
    CHECK(same_bits("final", out.final, in.initial));
    CHECK(same_bits("dinitial", out.dinitial, in.dfinal));
    CHECK(same_bits("final", infer_scan(in).final, in.initial));
    CHECK(same_bits("y", out.y, std::vector<float>(in.u.size())));
  }
}

}  // namespace
}  // namespace blockstate::test
