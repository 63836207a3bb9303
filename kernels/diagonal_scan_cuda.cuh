// SPDX-License-Identifier: Apache-2.0
// What the CUDA files of the diagonal scan share.
//
// Blocks. A channel's recurrence over a block of kBlock steps, from the state H before it:
//   y[k] = Re sum_p c a^(k+1) H + sum_(i<=k) K[k-i] u[i],   H' = a^kBlock H + sum_i a^(kBlock-1-i) u[i]
// with K[l] = Re sum_p c a^l (+ D at l = 0): products with matrices of the channel. The columns that are multiplied are
// kRows segments of the sequence (or of several sequences) side by side, so that H' needs no exchange between lanes.
// The products run on the tensor cores with float32's accuracy: each float is the sum of three bfloat16, and the six
// largest of the nine products of such sums are kept (the rest is below 2^-23 of the whole). States are added up
// outside of them, rounded to nearest. Segments first run from zero without output; a fold over their final states
// gives where each starts.
// Backward in time (E: adjoint of the state, conjugated; k counts from the right end of a block):
//   du[k] = Re sum_p a^k E + sum_(i<=k) K[k-i] dy[i],   E' = a^kBlock E + sum_i c a^(kBlock-i) dy[i]
#pragma once

#include "kernels/cuda_support.cuh"
#include "kernels/diagonal_scan.h"

namespace blockstate::kernels::cuda {

inline constexpr int64_t kMaxDiagonalStates = 256;

// diagonal_scan_direct_cuda.cu: any shape, step by step. The shapes have been checked.
template <class T>
void diagonal_scan_forward_direct(const Exec& exec, const DiagonalScanForward<T, float>& args);

// --- blocks ----------------------------------------------------------------------------------------------------------

inline constexpr int kBlock = 16;        // steps
inline constexpr int kRows = 16;         // segments side by side in a warp
inline constexpr int kGroup = 8;         // channels of a thread block, a warp each
inline constexpr int kBlockStates = 32;  // complex states; channels with fewer are filled up with zeros
inline constexpr int kPieces = 3;        // bfloat16 a float is split into
inline constexpr int kBlocksPerCheckpoint = static_cast<int>(kDiagonalCheckpoint / kBlock);
static_assert(kDiagonalCheckpoint % kBlock == 0, "checkpoints lie between blocks");

// Words of a lane in a channel's tables, in the order in which mma wants its right-hand matrices.
inline constexpr int kInject = 0;                              // [piece][tile of 4 states][2]
inline constexpr int kRead = kInject + kPieces * 8 * 2;        // [piece][8 states][8 steps][2]
inline constexpr int kToeplitz = kRead + kPieces * 4 * 2 * 2;  // [piece][8 steps][2]
inline constexpr int kPower = kToeplitz + kPieces * 2 * 2;     // [tile][re im]: a^kBlock, float
inline constexpr int kRest = kPower + 16;  // [tile][re im]: what kBlocksPerCheckpoint products with it lack, float
inline constexpr int kTableWords = kRest + 16;

/// Events of a block: bit k: its step k starts a record; bit 16 + k: step k is padding.
inline constexpr uint32_t kAllPadding = 0xffff0000u;

/// What the tables hold: for y, for du, or for the gradients of a and c, where the powers a^(kBlock-1-k) are followed
/// by their derivatives, (kBlock-1-k) a^(kBlock-2-k), in the place of kRead.
enum class Tables { kForward, kReverse, kGradient };

/// How the work on B sequences is cut: `segments` of `length` steps each, a multiple of kDiagonalCheckpoint.
struct Segments {
  int64_t count;
  int64_t length;
};

/// diagonal_scan_direct_cuda.cu: step by step. `carry` (where each segment starts, as in BlockScan) is read if there
/// are several segments.
template <class T>
void diagonal_scan_backward_direct(const Exec& exec, const DiagonalScanBackward<T, float>& args, Segments segments,
                                   const float2* carry);

inline int64_t carry_size(int64_t batch, int64_t channels, Segments segments) {
  return segments.count > 1 ? batch * segments.count * channels * kBlockStates : 0;
}

/// One pass over all segments.
template <class T>
struct BlockScan {
  View<const T, 3> in;  // u; dy on the way back
  View<T, 3> out;       // y; du. Absent: states only
  View<const float, 3> a, c;
  View<const float, 1> D;
  View<const float, 4> initial;  // dfinal on the way back
  View<float, 4> final;          // dinitial
  View<float, 5> checkpoint;     // forward only
  const uint32_t* tables;        // [channel][kTableWords][lane]
  const uint32_t* events;        // [b][block], or null
  float2* carry;  // [b][segment][channel][kBlockStates], unless there is one: where each starts (from its pass without
                  // output: where it ends)
  Segments segments;
};

/// A pass with its tables, events and carries. `scan` has all but tables and events; where it has several segments its
/// carry holds on return where each starts.
template <class T>
void run_block_scan(const Exec& exec, BlockScan<T> scan, View<const int64_t, 2> position, bool reverse);

/// Adds the gradients of a, c and D over whole windows of kDiagonalCheckpoint steps without events. `carry`: where each
/// segment of the way back starts.
template <class T>
void run_block_gradients(const Exec& exec, const DiagonalScanBackward<T, float>& args, Segments segments,
                         const float2* carry);

/// True where blocks serve the shape.
bool fits_blocks(const Exec& exec, int64_t length, int64_t states);
/// What the kernels by blocks may ask for; GPUs that have less go step by step.
inline constexpr int64_t kBlockSharedMemory = 226 * 1024;

Segments plan_segments(const Exec& exec, int64_t batch, int64_t length, int64_t channels);

}  // namespace blockstate::kernels::cuda
