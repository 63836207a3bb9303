// SPDX-License-Identifier: Apache-2.0
// A copy is brought to its simplest form first: dimensions of one element dropped, the others ordered as they lie in
// the destination, neighbours joined where both sides run on. What is left is a run of bytes, rows of them (moved in
// words as wide as sizes, strides and addresses allow), a transposition (through shared memory, so that both sides are
// walked along their rows), or single elements.
#include <algorithm>

#include "kernels/copy.h"
#include "kernels/row_map.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWordsPerThread = 2;

// Rank `rank`, the last dimension the fastest; strides in words.
struct Layout {
  int rank = 0;
  int64_t size[kMaxCopyRank] = {};
  int64_t to_stride[kMaxCopyRank] = {};
  int64_t from_stride[kMaxCopyRank] = {};
};

Layout simplest(const StridedCopy& args) {
  Layout out;
  for (int i = 0; i < args.rank; ++i) {
    if (args.size[i] == 1) {
      continue;
    }
    int at = out.rank++;
    for (; at > 0 && out.to_stride[at - 1] < args.to_stride[i]; --at) {
      out.size[at] = out.size[at - 1];
      out.to_stride[at] = out.to_stride[at - 1];
      out.from_stride[at] = out.from_stride[at - 1];
    }
    out.size[at] = args.size[i];
    out.to_stride[at] = args.to_stride[i];
    out.from_stride[at] = args.from_stride[i];
  }
  int joined = 0;
  for (int i = 1; i < out.rank; ++i) {
    const bool runs_on = out.to_stride[joined] == out.to_stride[i] * out.size[i] &&
                         (args.from == nullptr || out.from_stride[joined] == out.from_stride[i] * out.size[i]);
    out.size[runs_on ? joined : joined + 1] = (runs_on ? out.size[joined] : 1) * out.size[i];
    joined += runs_on ? 0 : 1;
    out.to_stride[joined] = out.to_stride[i];
    out.from_stride[joined] = out.from_stride[i];
  }
  out.rank = out.rank == 0 ? 0 : joined + 1;
  return out;
}

template <class Index>
struct Words {
  int rank;
  Index size[kMaxCopyRank];
  int64_t to_stride[kMaxCopyRank];
  int64_t from_stride[kMaxCopyRank];
  int64_t count;
};

template <class Word, class Index>
__global__ void __launch_bounds__(kThreads) words_kernel(Word* to, const Word* from, const Words<Index> words) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * (kThreads * kWordsPerThread) + threadIdx.x;
  Word value[kWordsPerThread];
  int64_t target[kWordsPerThread];
#pragma unroll
  for (int k = 0; k < kWordsPerThread; ++k) {
    const int64_t item = first + k * kThreads;
    target[k] = -1;
    if (item < words.count) {
      Index rest = static_cast<Index>(item);
      int64_t source = 0;
      target[k] = 0;
#pragma unroll
      for (int i = kMaxCopyRank - 1; i >= 0; --i) {
        if (i >= words.rank) {
          continue;
        }
        const Index above = i == 0 ? 0 : rest / words.size[i], at = rest - above * words.size[i];
        target[k] += static_cast<int64_t>(at) * words.to_stride[i];
        source += static_cast<int64_t>(at) * words.from_stride[i];
        rest = above;
      }
      value[k] = from == nullptr ? Word{} : from[source];
    }
  }
#pragma unroll
  for (int k = 0; k < kWordsPerThread; ++k) {
    if (target[k] >= 0) {
      to[target[k]] = value[k];
    }
  }
}

constexpr int kTile = 64;  // elements each way
constexpr int kTileThreads = 256;
constexpr int kLeastTile = 8;  // narrower than this, single elements are as good

// to[z][r][c] = from[z][r][c], where c is the fast dimension of `to` and r that of `from`; z stands for the others.
struct Transposition {
  int64_t rows, columns;        // sizes of r and c
  int64_t to_row, from_column;  // their strides on the other side
  int64_t row_tiles, column_tiles;
  int rank;  // of z
  int64_t size[kMaxCopyRank], to_stride[kMaxCopyRank], from_stride[kMaxCopyRank];
};

// Neighbours are moved kGroup at a time on both sides; sizes, strides and addresses allow it.
template <int kGroup, class Word>
__global__ void __launch_bounds__(kTileThreads) transpose_kernel(Word* to, const Word* from, const Transposition args) {
  using Group = Pack<Word, kGroup>;
  constexpr int kLine = kTile / kGroup, kLines = kTileThreads / kLine;  // threads along a line; lines at once
  constexpr int kPad = sizeof(Word) < 4 ? 4 / static_cast<int>(sizeof(Word)) : 1;
  __shared__ Word tile[kTile][kTile + kPad];  // [c][r]; the rows of one column lie in different banks
  int64_t rest = blockIdx.x;
  const int64_t column = rest % args.column_tiles * kTile;
  rest /= args.column_tiles;
  const int64_t row = rest % args.row_tiles * kTile;
  rest /= args.row_tiles;
  for (int i = args.rank - 1; i >= 0; --i) {
    const int64_t at = rest % args.size[i];
    rest /= args.size[i];
    to += at * args.to_stride[i];
    from += at * args.from_stride[i];
  }
  const int fast = threadIdx.x % kLine * kGroup, slow = threadIdx.x / kLine;
  Group read[kTile / kLines];
#pragma unroll
  for (int k = 0; k < kTile / kLines; ++k) {
    const int c = slow + k * kLines;
    if (column + c < args.columns && row + fast < args.rows) {
      read[k] = *reinterpret_cast<const Group*>(from + (column + c) * args.from_column + row + fast);
    }
  }
#pragma unroll
  for (int k = 0; k < kTile / kLines; ++k) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      tile[slow + k * kLines][fast + i] = read[k].value[i];
    }
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < kTile / kLines; ++k) {
    const int r = slow + k * kLines;
    if (row + r < args.rows && column + fast < args.columns) {
      Group write;
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        write.value[i] = tile[fast + i][r];
      }
      *reinterpret_cast<Group*>(to + (row + r) * args.to_row + column + fast) = write;
    }
  }
}

template <class Word, class Index>
void launch_words(const Exec& exec, void* to, const void* from, const Layout& layout, int64_t count) {
  Words<Index> words;
  words.rank = layout.rank;
  words.count = count;
  for (int i = 0; i < kMaxCopyRank; ++i) {
    words.size[i] = static_cast<Index>(layout.size[i]);
    words.to_stride[i] = layout.to_stride[i];
    words.from_stride[i] = layout.from_stride[i];
  }
  words_kernel<Word, Index>
      <<<grid_size(count, kThreads * kWordsPerThread, "copy_strided"), kThreads, 0, stream_of(exec)>>>(
          static_cast<Word*>(to), static_cast<const Word*>(from), words);
  check_launch(exec, "copy_strided");
}

template <class Word>
void copy_words(const Exec& exec, void* to, const void* from, const Layout& layout) {
  int64_t count = 1;
  for (int i = 0; i < layout.rank; ++i) {
    count *= layout.size[i];
  }
  if (count <= INT32_MAX) {
    launch_words<Word, uint32_t>(exec, to, from, layout, count);
  } else {
    launch_words<Word, uint64_t>(exec, to, from, layout, count);
  }
}

// True where both sides have a fast dimension, another one, and it was worth a tile.
template <class Word>
bool transpose(const Exec& exec, void* to, const void* from, const Layout& layout) {
  const int c = layout.rank - 1;
  if (from == nullptr || c < 1 || layout.to_stride[c] != 1) {
    return false;
  }
  const int r = static_cast<int>(std::find(layout.from_stride, layout.from_stride + c, 1) - layout.from_stride);
  if (r == c || layout.size[r] < kLeastTile || layout.size[c] < kLeastTile || layout.from_stride[c] == 0) {
    return false;
  }
  Transposition args = {};
  args.rows = layout.size[r];
  args.columns = layout.size[c];
  args.to_row = layout.to_stride[r];
  args.from_column = layout.from_stride[c];
  args.row_tiles = ceil_div<int64_t>(args.rows, kTile);
  args.column_tiles = ceil_div<int64_t>(args.columns, kTile);
  int64_t blocks = args.row_tiles * args.column_tiles;
  for (int i = 0; i < c; ++i) {
    if (i != r) {
      args.size[args.rank] = layout.size[i];
      args.to_stride[args.rank] = layout.to_stride[i];
      args.from_stride[args.rank] = layout.from_stride[i];
      ++args.rank;
      blocks *= layout.size[i];
    }
  }
  if (blocks > INT32_MAX) {
    return false;
  }
  // Groups of 4 bytes, where neither side splits one.
  constexpr int kGroup = sizeof(Word) < 4 ? 4 / static_cast<int>(sizeof(Word)) : 1;
  bool grouped = args.rows % kGroup == 0 && args.columns % kGroup == 0 && args.to_row % kGroup == 0 &&
                 args.from_column % kGroup == 0 && reinterpret_cast<uintptr_t>(to) % (kGroup * sizeof(Word)) == 0 &&
                 reinterpret_cast<uintptr_t>(from) % (kGroup * sizeof(Word)) == 0;
  for (int i = 0; i < args.rank; ++i) {
    grouped = grouped && args.to_stride[i] % kGroup == 0 && args.from_stride[i] % kGroup == 0;
  }
  const auto kernel = grouped ? transpose_kernel<kGroup, Word> : transpose_kernel<1, Word>;
  kernel<<<static_cast<unsigned>(blocks), kTileThreads, 0, stream_of(exec)>>>(static_cast<Word*>(to),
                                                                              static_cast<const Word*>(from), args);
  check_launch(exec, "copy_strided");
  return true;
}

/// The layout in words of `words` elements, if the copy can be said in them.
bool widen(const StridedCopy& args, int words, Layout& layout) {
  const int last = layout.rank - 1;
  const uint64_t bytes = static_cast<uint64_t>(words * args.element_bytes);
  bool possible = layout.rank > 0 && layout.to_stride[last] == 1 && layout.size[last] % words == 0 &&
                  reinterpret_cast<uintptr_t>(args.to) % bytes == 0 &&
                  reinterpret_cast<uintptr_t>(args.from) % bytes == 0 &&
                  (args.from == nullptr || layout.from_stride[last] == 1);
  for (int i = 0; i < last; ++i) {
    possible =
        possible && layout.to_stride[i] % words == 0 && (args.from == nullptr || layout.from_stride[i] % words == 0);
  }
  if (possible) {
    layout.size[last] /= words;
    for (int i = 0; i < last; ++i) {
      layout.to_stride[i] /= words;
      layout.from_stride[i] /= words;
    }
  }
  return possible;
}

template <class Word>
void copy_elements(const Exec& exec, const StridedCopy& args, const Layout& layout) {
  if (!transpose<Word>(exec, args.to, args.from, layout)) {
    copy_words<Word>(exec, args.to, args.from, layout);
  }
}

}  // namespace

void copy_strided(const Exec& exec, const StridedCopy& args) {
  require(args.element_bytes == 1 || args.element_bytes == 2 || args.element_bytes == 4 || args.element_bytes == 8,
          "copy_strided: elements of ", args.element_bytes, " bytes, wanted 1, 2, 4 or 8");
  require(args.rank >= 0 && args.rank <= kMaxCopyRank, "copy_strided: rank ", args.rank, ", wanted 0 to ",
          kMaxCopyRank);
  for (int i = 0; i < args.rank; ++i) {
    if (args.size[i] == 0) {
      return;
    }
  }
  Layout layout = simplest(args);
  if (layout.rank == 0 ||
      (layout.rank == 1 && layout.to_stride[0] == 1 && (args.from == nullptr || layout.from_stride[0] == 1))) {
    const int64_t bytes = args.element_bytes * (layout.rank == 0 ? 1 : layout.size[0]);
    if (args.from == nullptr) {
      fill_zero(exec, args.to, bytes);
    } else {
      copy_on_device(exec, args.to, args.from, bytes);
    }
    return;
  }
  for (int bytes = 16; bytes > args.element_bytes; bytes /= 2) {
    if (widen(args, bytes / args.element_bytes, layout)) {
      switch (bytes) {
        case 16:
          return copy_words<uint4>(exec, args.to, args.from, layout);
        case 8:
          return copy_words<uint64_t>(exec, args.to, args.from, layout);
        case 4:
          return copy_words<uint32_t>(exec, args.to, args.from, layout);
        default:
          return copy_words<uint16_t>(exec, args.to, args.from, layout);
      }
    }
  }
  switch (args.element_bytes) {
    case 8:
      return copy_elements<uint64_t>(exec, args, layout);
    case 4:
      return copy_elements<uint32_t>(exec, args, layout);
    case 2:
      return copy_elements<uint16_t>(exec, args, layout);
    default:
      return copy_elements<uint8_t>(exec, args, layout);
  }
}

}  // namespace blockstate::kernels::cuda
