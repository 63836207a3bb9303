// SPDX-License-Identifier: Apache-2.0
// The diagonal scan step by step: for more states than the blocked kernels hold, and for sequences of a few steps.
#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan_cuda.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kAhead = 8;   // steps whose inputs are loaded together
constexpr int kPiece = 16;  // steps whose states the way back keeps
constexpr int kPieces = kDiagonalCheckpoint / kPiece;
static_assert(kDiagonalCheckpoint % kPiece == 0, "pieces fill the steps between checkpoints");

/// kLanes neighbouring lanes serve one channel; lane i has the states i, i + kLanes, ..., kEach of them.
template <int kLanes, int kEach>
struct Place {
  int64_t b, d;
  int64_t row;  // b, or b and a segment
  int lane;
  bool inside;
  __device__ Place(int64_t channels, int64_t segments = 1) {
    const int64_t in_block = threadIdx.x / kLanes;
    const int64_t groups = ceil_div<int64_t>(channels, kThreads / kLanes);
    d = blockIdx.x % groups * (kThreads / kLanes) + in_block;
    row = blockIdx.x / groups;
    b = row / segments;
    lane = threadIdx.x % kLanes;
    inside = d < channels;
    d = inside ? d : channels - 1;  // the lanes of a warp stay together: the shuffles need all of them
  }
};

template <int kEach>
struct States {
  float re[kEach], im[kEach];
};

template <int kLanes, int kEach>
__device__ void load_states(const View<const float, 3>& from, const Place<kLanes, kEach>& place, States<kEach>& to) {
#pragma unroll
  for (int q = 0; q < kEach; ++q) {
    const int64_t p = place.lane + q * kLanes;
    const bool valid = p < from.size[1];
    to.re[q] = valid ? from(place.d, p, 0) : 0.0f;
    to.im[q] = valid ? from(place.d, p, 1) : 0.0f;
  }
}

template <int kLanes, int kEach>
__device__ void load_states(const View<const float, 4>& from, const Place<kLanes, kEach>& place, States<kEach>& to) {
#pragma unroll
  for (int q = 0; q < kEach; ++q) {
    const int64_t p = place.lane + q * kLanes;
    const bool valid = from && p < from.size[2];
    to.re[q] = valid ? from(place.b, place.d, p, 0) : 0.0f;
    to.im[q] = valid ? from(place.b, place.d, p, 1) : 0.0f;
  }
}

template <int kLanes, int kEach>
__device__ void store_states(const States<kEach>& from, const Place<kLanes, kEach>& place, const View<float, 4>& to) {
#pragma unroll
  for (int q = 0; q < kEach; ++q) {
    const int64_t p = place.lane + q * kLanes;
    if (place.inside && p < to.size[2]) {
      to(place.b, place.d, p, 0) = from.re[q];
      to(place.b, place.d, p, 1) = from.im[q];
    }
  }
}

template <int kEach>
__device__ void clear(States<kEach>& states) {
#pragma unroll
  for (int q = 0; q < kEach; ++q) {
    states.re[q] = states.im[q] = 0;
  }
}

/// h = a h + u.
template <int kEach>
__device__ void advance(const States<kEach>& a, float u, States<kEach>& h) {
#pragma unroll
  for (int q = 0; q < kEach; ++q) {
    const float re = fmaf(-a.im[q], h.im[q], fmaf(a.re[q], h.re[q], u));
    h.im[q] = fmaf(a.re[q], h.im[q], a.im[q] * h.re[q]);
    h.re[q] = re;
  }
}

template <class T>
__device__ int64_t position_of(const View<const int64_t, 2>& position, const T& place, int64_t t) {
  return position ? position(place.b, t) : 1;
}

template <class T, int kLanes, int kEach>
__global__ void __launch_bounds__(kThreads) forward_kernel(DiagonalScanForward<T, float> args) {
  const Place<kLanes, kEach> place(args.u.size[2]);
  const int64_t length = args.u.size[1];
  States<kEach> a, c, h;
  load_states(args.a, place, a);
  load_states(args.c, place, c);
  load_states(args.initial, place, h);
  const float skip = args.D ? args.D(place.d) : 0.0f;
  const T* const u = &args.u(place.b, 0, place.d);
  for (int64_t t0 = 0; t0 < length; t0 += kAhead) {
    if (args.checkpoint && t0 % kDiagonalCheckpoint == 0) {
#pragma unroll
      for (int q = 0; q < kEach; ++q) {
        const int64_t p = place.lane + q * kLanes;
        if (place.inside && p < args.a.size[1]) {
          args.checkpoint(place.b, t0 / kDiagonalCheckpoint, p, 0, place.d) = h.re[q];
          args.checkpoint(place.b, t0 / kDiagonalCheckpoint, p, 1, place.d) = h.im[q];
        }
      }
    }
    float in[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      in[i] = t0 + i < length ? to_float(u[(t0 + i) * args.u.stride[1]]) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (t0 + i < length) {
        const int64_t at = position_of(args.position, place, t0 + i);
        float out = 0;
        if (at >= 0) {
          if (at == 0) {
            clear(h);
          }
          advance(a, in[i], h);
#pragma unroll
          for (int q = 0; q < kEach; ++q) {
            out = fmaf(-c.im[q], h.im[q], fmaf(c.re[q], h.re[q], out));
          }
        }
        out = warp_sum<kLanes>(out);
        if (place.inside && place.lane == 0) {
          args.y(place.b, t0 + i, place.d) = from_float<T>(at < 0 ? 0.0f : fmaf(skip, in[i], out));
        }
      }
    }
  }
  if (args.final) {
    store_states(h, place, args.final);
  }
}

/// Sums over time of one channel: the gradients of a and c, then of D.
struct Sums {
  float* parameters;  // (B, segments, D, P, 4)
  float* skip;        // (B, segments, D)
};

// Each window between checkpoints is run forward once to keep every kPiece-th state, then piece by piece from the
// right: forward to keep all states, and back.
template <class T, int kLanes, int kEach>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(DiagonalScanBackward<T, float> args, Segments segments, const float2* carry, Sums sums) {
  const DiagonalScanForward<T, float>& in = args.forward;
  const Place<kLanes, kEach> place(in.u.size[2], segments.count);
  const int64_t length = in.u.size[1], states = in.a.size[1], channels = in.u.size[2];
  const int64_t segment = place.row % segments.count;
  States<kEach> a, c, adjoint, da, dc;
  load_states(in.a, place, a);
  load_states(in.c, place, c);
  if (segments.count == 1) {
    load_states(args.dfinal, place, adjoint);
  } else {
#pragma unroll
    for (int q = 0; q < kEach; ++q) {
      const int64_t p = place.lane + q * kLanes;
      const float2 start = p < kBlockStates ? carry[(place.row * channels + place.d) * kBlockStates + p] : float2{0, 0};
      adjoint.re[q] = start.x;
      adjoint.im[q] = -start.y;
    }
  }
  clear(da);
  clear(dc);
  float dskip = 0;
  const float skip = in.D ? in.D(place.d) : 0.0f;
  States<kEach> starts[kPieces], before[kPiece];
  const int64_t first_window = segment * (segments.length / kDiagonalCheckpoint);
  const int64_t end_of_segment = min(length, (segment + 1) * segments.length);
  for (int64_t w = ceil_div(end_of_segment, kDiagonalCheckpoint) - 1; w >= first_window; --w) {
    States<kEach> h;
#pragma unroll
    for (int q = 0; q < kEach; ++q) {
      const int64_t p = place.lane + q * kLanes;
      h.re[q] = p < states ? in.checkpoint(place.b, w, p, 0, place.d) : 0.0f;
      h.im[q] = p < states ? in.checkpoint(place.b, w, p, 1, place.d) : 0.0f;
    }
    const int64_t first = w * kDiagonalCheckpoint;
    const int64_t steps = length - first < kDiagonalCheckpoint ? length - first : kDiagonalCheckpoint;
    const auto step = [&](int64_t t, States<kEach>* keep) {
      const int64_t at = position_of(in.position, place, t);
      if (at == 0) {
        clear(h);
      }
      if (keep != nullptr) {
        *keep = h;
      }
      if (at >= 0) {
        advance(a, to_float(in.u(place.b, t, place.d)), h);
      }
    };
    for (int64_t t = 0; t < steps; ++t) {
      if (t % kPiece == 0) {
        starts[t / kPiece] = h;
      }
      step(first + t, nullptr);
    }
    for (int64_t piece = (steps - 1) / kPiece; piece >= 0; --piece) {
      const int64_t begin = first + piece * kPiece;
      const int64_t count = first + steps - begin < kPiece ? first + steps - begin : kPiece;
      h = starts[piece];
      for (int64_t i = 0; i < count; ++i) {
        step(begin + i, &before[i]);
      }
      for (int64_t i = count - 1; i >= 0; --i) {
        const int64_t t = begin + i, at = position_of(in.position, place, t);
        const float dy = at < 0 ? 0.0f : to_float(args.dy(place.b, t, place.d));
        const float u = to_float(in.u(place.b, t, place.d));
        float du = 0;
        if (at >= 0) {
          h = before[i];
          const States<kEach> left = h;
          advance(a, u, h);
#pragma unroll
          for (int q = 0; q < kEach; ++q) {
            const float re = fmaf(dy, c.re[q], adjoint.re[q]), im = fmaf(-dy, c.im[q], adjoint.im[q]);
            dc.re[q] = fmaf(dy, h.re[q], dc.re[q]);
            dc.im[q] = fmaf(-dy, h.im[q], dc.im[q]);
            da.re[q] = fmaf(im, left.im[q], fmaf(re, left.re[q], da.re[q]));
            da.im[q] = fmaf(-re, left.im[q], fmaf(im, left.re[q], da.im[q]));
            du += q * kLanes + place.lane < states ? re : 0.0f;
            adjoint.re[q] = fmaf(a.im[q], im, a.re[q] * re);
            adjoint.im[q] = fmaf(-a.im[q], re, a.re[q] * im);
          }
          if (at == 0) {
            clear(adjoint);
          }
          dskip = fmaf(dy, u, dskip);
        }
        du = warp_sum<kLanes>(du);
        if (place.inside && place.lane == 0) {
          args.du(place.b, t, place.d) = from_float<T>(at < 0 ? 0.0f : fmaf(skip, dy, du));
        }
      }
    }
  }
  if (args.dinitial && segment == 0) {
    store_states(adjoint, place, args.dinitial);
  }
#pragma unroll
  for (int q = 0; q < kEach; ++q) {
    const int64_t p = place.lane + q * kLanes;
    if (place.inside && p < states) {
      float* const to = sums.parameters + ((place.row * channels + place.d) * states + p) * 4;
      to[0] = da.re[q];
      to[1] = da.im[q];
      to[2] = dc.re[q];
      to[3] = dc.im[q];
    }
  }
  if (place.inside && place.lane == 0) {
    sums.skip[place.row * channels + place.d] = dskip;
  }
}

__global__ void __launch_bounds__(kThreads)
    add_rows_kernel(View<float, 3> da, View<float, 3> dc, View<float, 1> dD, Sums sums, int64_t batch) {
  const int64_t channels = da.size[0], states = da.size[1];
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index < channels * states) {
    float sum[4] = {};
    for (int64_t b = 0; b < batch; ++b) {
      for (int i = 0; i < 4; ++i) {
        sum[i] += sums.parameters[(b * channels * states + index) * 4 + i];
      }
    }
    const int64_t d = index / states, p = index % states;
    da(d, p, 0) += sum[0];
    da(d, p, 1) += sum[1];
    dc(d, p, 0) += sum[2];
    dc(d, p, 1) += sum[3];
  }
  if (dD && index < channels) {
    float sum = 0;
    for (int64_t b = 0; b < batch; ++b) {
      sum += sums.skip[b * channels + index];
    }
    dD(index) += sum;
  }
}

template <int kLanes>
unsigned grid_of(int64_t batch, int64_t channels) {
  return static_cast<unsigned>(batch * ceil_div<int64_t>(channels, kThreads / kLanes));
}

void check_states(const char* op, int64_t states) {
  require(states <= kMaxDiagonalStates, op, " takes at most ", kMaxDiagonalStates, " complex states on a GPU, found ",
          states);
}

}  // namespace

template <class T>
void diagonal_scan_forward_direct(const Exec& exec, const DiagonalScanForward<T, float>& args) {
  const int64_t batch = args.u.size[0], channels = args.u.size[2], states = args.a.size[1];
  check_states("diagonal_scan", states);
  if (batch * channels == 0) {
    return;
  }
  if (states <= 8) {
    forward_kernel<T, 8, 1><<<grid_of<8>(batch, channels), kThreads, 0, stream_of(exec)>>>(args);
  } else if (states <= 32) {
    forward_kernel<T, 8, 4><<<grid_of<8>(batch, channels), kThreads, 0, stream_of(exec)>>>(args);
  } else if (states <= 64) {
    forward_kernel<T, 32, 2><<<grid_of<32>(batch, channels), kThreads, 0, stream_of(exec)>>>(args);
  } else {
    forward_kernel<T, 32, 8><<<grid_of<32>(batch, channels), kThreads, 0, stream_of(exec)>>>(args);
  }
  check_launch(exec, "diagonal_scan");
}

template <class T>
void diagonal_scan_backward_direct(const Exec& exec, const DiagonalScanBackward<T, float>& args, Segments segments,
                                   const float2* carry) {
  const int64_t batch = args.forward.u.size[0] * segments.count, channels = args.forward.u.size[2],
                states = args.forward.a.size[1];
  check_states("diagonal_scan backward", states);
  if (batch * channels == 0) {
    return;
  }
  const Scratch<float> scratch(exec, batch * channels * (4 * states + 1));
  const Sums sums{scratch.get(), scratch.get() + batch * channels * states * 4};
  if (states <= 8) {
    backward_kernel<T, 8, 1>
        <<<grid_of<8>(batch, channels), kThreads, 0, stream_of(exec)>>>(args, segments, carry, sums);
  } else if (states <= 32) {
    backward_kernel<T, 8, 4>
        <<<grid_of<8>(batch, channels), kThreads, 0, stream_of(exec)>>>(args, segments, carry, sums);
  } else if (states <= 64) {
    backward_kernel<T, 32, 2>
        <<<grid_of<32>(batch, channels), kThreads, 0, stream_of(exec)>>>(args, segments, carry, sums);
  } else {
    backward_kernel<T, 32, 8>
        <<<grid_of<32>(batch, channels), kThreads, 0, stream_of(exec)>>>(args, segments, carry, sums);
  }
  check_launch(exec, "diagonal_scan backward");
  const int64_t most = channels * (states > 1 ? states : 1);
  add_rows_kernel<<<static_cast<unsigned>(ceil_div<int64_t>(most, kThreads)), kThreads, 0, stream_of(exec)>>>(
      args.da, args.dc, args.dD, sums, batch);
  check_launch(exec, "diagonal_scan backward");
}

template void diagonal_scan_forward_direct<float>(const Exec&, const DiagonalScanForward<float, float>&);
template void diagonal_scan_forward_direct<BFloat16>(const Exec&, const DiagonalScanForward<BFloat16, float>&);
template void diagonal_scan_backward_direct<float>(const Exec&, const DiagonalScanBackward<float, float>&, Segments,
                                                   const float2*);
template void diagonal_scan_backward_direct<BFloat16>(const Exec&, const DiagonalScanBackward<BFloat16, float>&,
                                                      Segments, const float2*);

}  // namespace blockstate::kernels::cuda
