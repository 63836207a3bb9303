// SPDX-License-Identifier: Apache-2.0
// What a pass without gradients leaves for the pass that repeats it with them. Rebuilding a chunk, or a sublayer, need
// not repeat what takes long and is small to keep, such as a scan: an op whose outputs were kept takes them instead of
// running.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace blockstate {

/// Outputs of the ops of one pass, in the order in which they ran.
struct Kept {
  struct Entry {
    std::string_view op;
    std::vector<Tensor> outputs;  ///< empty: there was no room
  };
  std::vector<Entry> entries;
  size_t next = 0;
};

/// What of an op may be kept: all that its second run computes, a little with which that run is shorter, or nothing.
enum class Keeping : uint8_t { kNothing, kLittle, kAll };

/// Bytes that may be kept. A little of every chunk saves more than all of a few, so it goes first.
struct KeepRoom {
  int64_t bytes = 0;         ///< left
  int64_t promised = 0;      ///< of them, to the little of chunks to come
  bool little_only = false;  ///< while it is not known how much to promise
};

/// While it lives, ops of this thread leave their outputs in one place, or take them from another. Both passes must run
/// the same ops on the same inputs.
class KeepScope {
 public:
  KeepScope(const KeepScope&) = delete;
  KeepScope& operator=(const KeepScope&) = delete;

 protected:
  struct State {
    Kept* source = nullptr;
    Kept* target = nullptr;
    KeepRoom* room = nullptr;  // of the target
  };
  KeepScope();
  ~KeepScope();
  static thread_local State current_;

 private:
  State previous_;
  friend bool take_kept(std::string_view op, std::initializer_list<Tensor*> outputs);
  friend bool will_repeat();
  friend Keeping room_to_keep(int64_t all, int64_t little);
  friend void keep_outputs(std::string_view op, std::vector<Tensor> outputs);
};

/// The first pass. Where it is itself the repetition of another, ops go on taking from that.
class LeaveScope : public KeepScope {
 public:
  LeaveScope(Kept& target, KeepRoom& room);
};

/// The second.
class TakeScope : public KeepScope {
 public:
  explicit TakeScope(Kept& source);
};

// For ops. Where take_kept gave nothing, the op runs; it saves what backward needs also where room_to_keep says so
// (bytes of all, and of a little where the op has such a thing). Taken or computed, it hands that to keep_outputs
// (nothing where there was no room). Outside a first pass there is no room, and keep_outputs does nothing.
bool take_kept(std::string_view op, std::initializer_list<Tensor*> outputs);
Keeping room_to_keep(int64_t all, int64_t little = 0);
/// Whether this is the pass that another will repeat, with gradients. An op whose sums are cut in another way where
/// backward follows cuts them so here too: then the two passes have the same bits, whatever is kept between them.
bool will_repeat();
void keep_outputs(std::string_view op, std::vector<Tensor> outputs);

}  // namespace blockstate
