// SPDX-License-Identifier: Apache-2.0
// Loops over the rows of matrices that the element-wise kernels share. Include it as vector_math-inl.h is.
#if defined(BLOCKSTATE_KERNELS_ROW_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BLOCKSTATE_KERNELS_ROW_LOOPS_INL_H_
#undef BLOCKSTATE_KERNELS_ROW_LOOPS_INL_H_
#else
#define BLOCKSTATE_KERNELS_ROW_LOOPS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/base/parallel.h"
#include "core/base/view.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace blockstate::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Elements a thread takes at a time: long enough to hide the cost of handing them out.
inline constexpr int64_t kSpanElements = int64_t{1} << 15;

/// The first n elements at p (0 < n < lanes), zeros after them; never reads beyond.
template <class D>
HWY_INLINE hn::Vec<D> LoadFirst(D d, const hn::TFromD<D>* p, size_t n) {
#if HWY_TARGET <= HWY_AVX2
  return hn::MaskedLoad(hn::FirstN(d, n), d, p);
#else
  HWY_ALIGN hn::TFromD<D> buffer[hn::MaxLanes(D())] = {};
  for (size_t i = 0; i < n; ++i) {
    buffer[i] = p[i];
  }
  return hn::Load(d, buffer);
#endif
}

/// Writes the first n elements of v (0 < n < lanes) and nothing beyond.
template <class D, class V>
HWY_INLINE void StoreFirst(D d, V v, hn::TFromD<D>* p, size_t n) {
#if HWY_TARGET <= HWY_AVX2
  hn::BlendedStore(v, hn::FirstN(d, n), d, p);
#else
  HWY_ALIGN hn::TFromD<D> buffer[hn::MaxLanes(D())];
  hn::Store(v, d, buffer);
  for (size_t i = 0; i < n; ++i) {
    p[i] = buffer[i];
  }
#endif
}

/// How a loop body reads and writes: whole vectors, or the first `count` lanes at the end of a row.
struct Whole {
  template <class D>
  HWY_INLINE hn::Vec<D> Load(D d, const hn::TFromD<D>* p) const {
    return hn::LoadU(d, p);
  }
  template <class D, class V>
  HWY_INLINE void Store(D d, V v, hn::TFromD<D>* p) const {
    hn::StoreU(v, d, p);
  }
  /// v, with zeros in the lanes past the end.
  template <class D, class V>
  HWY_INLINE V Keep(D, V v) const {
    return v;
  }
  /// v, with `other` in the lanes past the end.
  template <class D, class V>
  HWY_INLINE V Pad(D, V v, V) const {
    return v;
  }
};
struct First {
  size_t count;
  template <class D>
  HWY_INLINE hn::Vec<D> Load(D d, const hn::TFromD<D>* p) const {
    return LoadFirst(d, p, count);
  }
  template <class D, class V>
  HWY_INLINE void Store(D d, V v, hn::TFromD<D>* p) const {
    StoreFirst(d, v, p, count);
  }
  template <class D, class V>
  HWY_INLINE V Keep(D d, V v) const {
    return hn::IfThenElseZero(hn::FirstN(d, count), v);
  }
  template <class D, class V>
  HWY_INLINE V Pad(D d, V v, V other) const {
    return hn::IfThenElse(hn::FirstN(d, count), v, other);
  }
};

/// body(i, Whole()) for i = 0, lanes, ... and body(i, First{rest}) where n is no multiple of the lanes.
template <class D, class Body>
HWY_INLINE void ForEachVector(D d, int64_t n, const Body& body) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    body(i, Whole());
  }
  if (i < n) {
    body(i, First{static_cast<size_t>(n - i)});
  }
}

template <class D, class V>
HWY_INLINE hn::TFromD<D> Total(D d, V v) {
  return hn::GetLane(hn::SumOfLanes(d, v));
}

/// Calls body(row, column, count) over pieces that together cover rows x columns once; on the pool where there are
/// enough. `joined` promises that each matrix is one contiguous run; then it is cut without regard to its rows.
template <class Body>
void ForEachSpan(int64_t rows, int64_t columns, bool joined, const Body& body) {
  if (joined) {
    columns *= rows;
    rows = std::min<int64_t>(rows, 1);
  }
  if (rows == 0 || columns == 0) {
    return;
  }
  const int64_t spans = (columns + kSpanElements - 1) / kSpanElements;  // of each row
  const int64_t grain = std::max<int64_t>(1, kSpanElements / columns);  // rows, where a row is less than a span
  parallel_for(rows * spans, grain, [&](int64_t begin, int64_t end) HWY_ATTR {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t column = item % spans * kSpanElements;
      body(item / spans, column, std::min(kSpanElements, columns - column));
    }
  });
}

/// out[...](r, c) = f(d, in..., out...) for every element: f reads an array of vectors, one an input, and fills one,
/// one an output. All views have one size and last stride 1; an output may be the same view as an input.
template <size_t kOutputs, size_t kInputs, class T, class F>
void MapRows(const View<T, 2> (&out)[kOutputs], const View<const T, 2> (&in)[kInputs], const F& f) {
  bool joined = true;
  for (const auto& view : out) {
    joined = joined && view.contiguous();
  }
  for (const auto& view : in) {
    joined = joined && view.contiguous();
  }
  ForEachSpan(out[0].size[0], out[0].size[1], joined, [&](int64_t row, int64_t column, int64_t count) HWY_ATTR {
    const hn::ScalableTag<T> d;
    using V = hn::Vec<decltype(d)>;
    const T* from[kInputs];
    T* to[kOutputs];
    for (size_t k = 0; k < kInputs; ++k) {
      from[k] = in[k].data + row * in[k].stride[0] + column;
    }
    for (size_t k = 0; k < kOutputs; ++k) {
      to[k] = out[k].data + row * out[k].stride[0] + column;
    }
    ForEachVector(d, count, [&](int64_t i, auto access) HWY_ATTR {
      V x[kInputs], y[kOutputs];
      for (size_t k = 0; k < kInputs; ++k) {
        x[k] = access.Load(d, from[k] + i);
      }
      f(d, x, y);
      for (size_t k = 0; k < kOutputs; ++k) {
        access.Store(d, y[k], to[k] + i);
      }
    });
  });
}

}  // namespace blockstate::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard of the target
