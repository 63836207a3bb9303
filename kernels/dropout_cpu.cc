// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/parallel.h"
#include "core/base/random.h"
#include "kernels/elementwise_check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dropout_cpu.cc"
#include "hwy/foreach_target.h"
// foreach_target.h comes first
#include "kernels/row_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {

inline constexpr int64_t kDraws = 512;  // random words made at a time; a multiple of 4 times the lanes

// words[i] = the word of column first + i, for i in [0, count), perhaps more: one Philox block (four columns) a 64-bit
// lane, its words in the lower halves; what the upper halves hold does not matter.
HWY_INLINE void DrawWords(uint64_t key, uint64_t position, uint64_t first, size_t count, uint32_t* HWY_RESTRICT words) {
#if HWY_TARGET == HWY_SCALAR
  for (uint64_t block = 0; 4 * block < count; ++block) {
    const Philox draw(key, position, first / 4 + block);
    std::memcpy(words + 4 * block, draw.word, sizeof draw.word);
  }
#else
  const hn::ScalableTag<uint64_t> d;
  const hn::Repartition<uint32_t, decltype(d)> d32;
  const auto m0 = hn::Set(d32, 0xD2511F53u);
  const auto m1 = hn::Set(d32, 0xCD9E8D57u);
  const auto lower = hn::Set(d, 0xFFFFFFFFu);
  const size_t lanes = hn::Lanes(d);
  for (size_t block = 0; 4 * block < count; block += lanes) {
    const auto counter = hn::Iota(d, first / 4 + block);
    auto w0 = counter;
    auto w1 = hn::ShiftRight<32>(counter);
    auto w2 = hn::Set(d, position);
    auto w3 = hn::Set(d, position >> 32);
    uint32_t k0 = static_cast<uint32_t>(key);
    uint32_t k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const auto product0 = hn::MulEven(hn::BitCast(d32, w0), m0);
      const auto product1 = hn::MulEven(hn::BitCast(d32, w2), m1);
      w0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(product1), w1), hn::Set(d, uint64_t{k0}));
      w2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(product0), w3), hn::Set(d, uint64_t{k1}));
      w1 = product1;
      w3 = product0;
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    const auto pair01 = hn::Or(hn::And(w0, lower), hn::ShiftLeft<32>(w1));
    const auto pair23 = hn::Or(hn::And(w2, lower), hn::ShiftLeft<32>(w3));
    hn::StoreInterleaved2(pair01, pair23, d, reinterpret_cast<uint64_t*>(words + 4 * block));
  }
#endif
}

// The upper 24 bits of each word as a number, which either type holds exactly. Reads a whole vector of words.
template <class D>
HWY_INLINE hn::Vec<D> DrawnNumbers(D d, const uint32_t* words) {
  const hn::Rebind<uint32_t, D> d32;
  const hn::Rebind<int32_t, D> di32;
  const auto bits = hn::BitCast(di32, hn::ShiftRight<8>(hn::LoadU(d32, words)));
  if constexpr (sizeof(hn::TFromD<D>) == 4) {
    return hn::ConvertTo(d, bits);
  } else {
    return hn::PromoteTo(d, bits);
  }
}

template <class T>
void DropRow(T* y, const T* x, int64_t columns, uint64_t key, uint64_t position, uint32_t threshold, T factor) {
  const hn::ScalableTag<T> d;
  alignas(64) uint32_t words[kDraws];
  for (int64_t first = 0; first < columns; first += kDraws) {
    const int64_t count = std::min(kDraws, columns - first);
    DrawWords(key, position, static_cast<uint64_t>(first), static_cast<size_t>(count), words);
    ForEachVector(d, count, [&](int64_t i, auto access) HWY_ATTR {
      const auto scaled = hn::Mul(access.Load(d, x + first + i), hn::Set(d, factor));
      const auto keep = hn::Ge(DrawnNumbers(d, words + i), hn::Set(d, static_cast<T>(threshold)));
      access.Store(d, hn::IfThenElseZero(keep, scaled), y + first + i);
    });
  }
}

void DropRowFloat(float* y, const float* x, int64_t columns, uint64_t key, uint64_t position, uint32_t threshold,
                  float factor) {
  DropRow(y, x, columns, key, position, threshold, factor);
}
void DropRowDouble(double* y, const double* x, int64_t columns, uint64_t key, uint64_t position, uint32_t threshold,
                   double factor) {
  DropRow(y, x, columns, key, position, threshold, factor);
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace blockstate::kernels {

HWY_EXPORT(DropRowFloat);
HWY_EXPORT(DropRowDouble);

namespace cpu {
namespace {

void drop_row(float* y, const float* x, int64_t columns, uint64_t key, uint64_t position, uint32_t threshold,
              float factor) {
  HWY_DYNAMIC_DISPATCH(DropRowFloat)(y, x, columns, key, position, threshold, factor);
}
void drop_row(double* y, const double* x, int64_t columns, uint64_t key, uint64_t position, uint32_t threshold,
              double factor) {
  HWY_DYNAMIC_DISPATCH(DropRowDouble)(y, x, columns, key, position, threshold, factor);
}

}  // namespace

template <class T>
void dropout(const Dropout<T>& args) {
  const int64_t rows = args.x.size[0];
  const int64_t columns = args.x.size[1];
  check_dropout(args);
  if (rows == 0 || columns == 0) {
    return;
  }
  // unit_float(word) >= rate, said in integers.
  const auto threshold = static_cast<uint32_t>(std::ceil(double{args.rate} * 0x1p24));
  const T factor = T(1) / (T(1) - static_cast<T>(args.rate));
  parallel_for(rows, std::max<int64_t>(1, (int64_t{1} << 14) / columns), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      T* y = args.y.data + r * args.y.stride[0];
      const int64_t position = args.position(r);
      if (position < 0) {
        std::fill(y, y + columns, T(0));
        continue;
      }
      drop_row(y, args.x.data + r * args.x.stride[0], columns, mix_key(args.key, static_cast<uint64_t>(args.record(r))),
               static_cast<uint64_t>(position), threshold, factor);
    }
  });
}

template void dropout<float>(const Dropout<float>&);
template void dropout<double>(const Dropout<double>&);

}  // namespace cpu
}  // namespace blockstate::kernels
#endif  // HWY_ONCE
