// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/copy.h"
#include "tests/support/cuda_rows.h"
#include "tests/support/fill.h"

namespace blockstate::test {
namespace {

struct CopyCase {
  std::vector<int64_t> size, to_stride, from_stride;
  int64_t to_offset = 0, from_offset = 0;
};

const CopyCase kCopyCases[] = {
    {{}, {}, {}},                                              // one element
    {{1000}, {1}, {1}},                                        // a run
    {{7, 3, 5}, {15, 5, 1}, {15, 5, 1}, 3, 1},                 // a run of three dimensions
    {{7, 64}, {64, 1}, {96, 1}},                               // rows, wide words
    {{7, 64}, {72, 1}, {96, 1}, 8, 16},                        //
    {{7, 64}, {72, 1}, {96, 1}, 1, 1},                         // rows that are not aligned
    {{7, 61}, {61, 1}, {67, 1}},                               //
    {{3, 5, 7, 16}, {560, 112, 16, 1}, {560, 16, 80, 1}},      // (B, L, H, P) to (B, H, L, P)
    {{70, 45}, {45, 1}, {1, 70}},                              // transposed
    {{3, 33, 65}, {33 * 65, 65, 1}, {33 * 65, 1, 33}},         //
    {{4, 40, 2, 36}, {2880, 72, 36, 1}, {2880, 1, 1440, 40}},  //
    {{65, 33}, {1, 65}, {33, 1}},                              // transposed, the destination's order last
    {{9, 4}, {4, 1}, {1, 9}},                                  // too narrow for tiles
    {{50, 30}, {30, 1}, {0, 1}},                               // one row for all
    {{50, 30}, {30, 1}, {1, 0}},                               // one element for a row
    {{5, 6, 7}, {42, 7, 1}, {210, 14, 2}},                     // every second element
    {{2, 3, 2, 3, 2, 3}, {108, 36, 18, 6, 3, 1}, {1, 2, 6, 12, 36, 72}},
    {{1, 8, 1, 8}, {5, 8, 9, 1}, {3, 16, 4, 1}},
    {{3, 0, 4}, {0, 4, 1}, {0, 4, 1}},
    {{6, 10}, {20, 2}, {10, 1}},  // a destination with gaps
};

int64_t extent(const std::vector<int64_t>& size, const std::vector<int64_t>& stride) {
  int64_t last = 0;
  for (size_t i = 0; i < size.size(); ++i) {
    last += (size[i] - 1) * stride[i];
  }
  return std::max<int64_t>(last, 0) + 1;
}

template <class T>
void check_copy(const CopyCase& s, bool zeros) {
  CAPTURE(s.size, s.to_stride, s.from_stride, s.to_offset, s.from_offset, sizeof(T), zeros);
  std::vector<T> from(static_cast<size_t>(extent(s.size, s.from_stride) + s.from_offset)),
      to(static_cast<size_t>(extent(s.size, s.to_stride) + s.to_offset));
  std::iota(from.begin(), from.end(), T(3));
  std::fill(to.begin(), to.end(), T(1));
  const CudaArray<T> source(from), target(to);
  kernels::cuda::StridedCopy args;
  args.to = target.data() + s.to_offset;
  args.from = zeros ? nullptr : source.data() + s.from_offset;
  args.element_bytes = sizeof(T);
  args.rank = static_cast<int>(s.size.size());
  std::copy(s.size.begin(), s.size.end(), args.size);
  std::copy(s.to_stride.begin(), s.to_stride.end(), args.to_stride);
  std::copy(s.from_stride.begin(), s.from_stride.end(), args.from_stride);
  kernels::cuda::copy_strided(gpu(), args);
  int64_t count = 1;
  for (const int64_t size : s.size) {
    count *= size;
  }
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, at = s.to_offset, source_at = s.from_offset;
    for (size_t d = s.size.size(); d-- > 0;) {
      at += rest % s.size[d] * s.to_stride[d];
      source_at += rest % s.size[d] * s.from_stride[d];
      rest /= s.size[d];
    }
    to[static_cast<size_t>(at)] = zeros ? T(0) : from[static_cast<size_t>(source_at)];
  }
  CHECK(same_bits("to", target.host(), to));
}

template <class To, class From>
void check_convert(const std::vector<float>& values, int64_t skip) {
  std::vector<From> from;
  std::vector<To> expected;
  for (const float value : values) {
    from.push_back(static_cast<From>(value));
    expected.push_back(static_cast<To>(from.back()));
  }
  const CudaArray<From> source(from);
  const CudaArray<To> target(static_cast<int64_t>(from.size()));
  const int64_t count = target.count() - skip;
  kernels::cuda::convert<To, From>(gpu(), target.data() + skip, source.data() + skip, count);
  const std::vector<To> found = target.host();
  for (size_t i = static_cast<size_t>(skip); i < found.size(); ++i) {
    CAPTURE(i, values[i]);
    REQUIRE(std::memcmp(&found[i], &expected[i], sizeof(To)) == 0);
  }
}

}  // namespace

TEST_CASE("copy_strided on CUDA moves any strides of any width", "[copy][cuda]") {
  for (const CopyCase& s : kCopyCases) {
    for (const bool zeros : {false, true}) {
      check_copy<uint8_t>(s, zeros);
      check_copy<uint16_t>(s, zeros);
      check_copy<uint32_t>(s, zeros);
      check_copy<int64_t>(s, zeros);
    }
  }
}

TEST_CASE("copy_strided on CUDA refuses what it cannot do", "[copy][cuda]") {
  kernels::cuda::StridedCopy args;
  args.element_bytes = 3;
  CHECK_THROWS_WITH(kernels::cuda::copy_strided(gpu(), args), Catch::Contains("elements of 3 bytes"));
}

TEST_CASE("copy_strided on CUDA reaches elements past 2^31", "[copy][cuda][large]") {
  constexpr int64_t kStride = (int64_t{1} << 31) + 16;
  const CudaSpace<uint16_t> far(2 * kStride + 40);
  const CudaArray<uint16_t> near({1, 2, 3, 4, 5, 6}), back(6);
  for (const int64_t inner : {1, 2}) {
    kernels::cuda::StridedCopy args{far.data(), near.data(), 2, 2, {3, 2}, {kStride, inner}, {2, 1}};
    kernels::cuda::copy_strided(gpu(), args);
    args = {back.data(), far.data(), 2, 2, {3, 2}, {2, 1}, {kStride, inner}};
    kernels::cuda::copy_strided(gpu(), args);
    CHECK(back.host() == near.host());
  }
}

TEST_CASE("convert on CUDA rounds as the CPU does", "[copy][cuda]") {
  std::vector<float> values = random_normal<float>(1, 5003, 20);
  values[0] = std::numeric_limits<float>::infinity();
  values[1] = 1.00390625f;  // between two bfloat16, the even one is below
  values[2] = 1.01171875f;  // and here above
  for (const int64_t skip : {0, 1}) {
    check_convert<BFloat16, float>(values, skip);
    check_convert<float, BFloat16>(values, skip);
    check_convert<double, float>(values, skip);
    check_convert<float, double>(values, skip);
    check_convert<float, float>(values, skip);
    std::vector<float> whole = random_normal<float>(2, 4099, 1e6);
    check_convert<int64_t, float>(whole, skip);
    check_convert<float, int64_t>(whole, skip);
    check_convert<int32_t, float>(whole, skip);
    check_convert<float, int32_t>(whole, skip);
    for (float& value : whole) {
      value = std::fmod(std::abs(value), 255.0f);
    }
    check_convert<uint8_t, float>(whole, skip);
    check_convert<float, uint8_t>(whole, skip);
  }
}

TEST_CASE("fill on CUDA", "[copy][cuda]") {
  for (const int64_t count : {0, 1, 7, 8, 1001}) {
    for (const int64_t skip : {0, 1, 3}) {
      CAPTURE(count, skip);
      const CudaArray<float> floats(std::vector<float>(static_cast<size_t>(count + skip), 2));
      const CudaArray<int64_t> longs(std::vector<int64_t>(static_cast<size_t>(count + skip), 2));
      const CudaArray<uint8_t> bytes(std::vector<uint8_t>(static_cast<size_t>(count + skip), 2));
      kernels::cuda::fill(gpu(), floats.data() + skip, -1.5f, count);
      kernels::cuda::fill(gpu(), longs.data() + skip, -3, count);
      kernels::cuda::fill(gpu(), bytes.data() + skip, 7, count);
      std::vector<float> expected(static_cast<size_t>(count + skip), -1.5f);
      std::vector<int64_t> expected_longs(expected.size(), -3);
      std::vector<uint8_t> expected_bytes(expected.size(), 7);
      std::fill_n(expected.begin(), skip, 2.0f);
      std::fill_n(expected_longs.begin(), skip, 2);
      std::fill_n(expected_bytes.begin(), skip, uint8_t{2});
      CHECK(floats.host() == expected);
      CHECK(longs.host() == expected_longs);
      CHECK(bytes.host() == expected_bytes);
    }
  }
}

}  // namespace blockstate::test
