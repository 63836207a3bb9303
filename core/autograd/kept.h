// SPDX-License-Identifier: Apache-2.0
// What a pass without gradients leaves for the pass that repeats it with them. Rebuilding a chunk need not repeat what
// takes long and is small to keep, such as a scan: an op whose outputs were kept takes them instead of running.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "core/tensor/tensor.h"

namespace blockstate {

/// Outputs of the ops of one chunk, in the order in which they ran.
struct Kept {
  struct Entry {
    std::string_view op;
    std::vector<Tensor> outputs;  ///< empty: there was no room
  };
  std::vector<Entry> entries;
  size_t next = 0;
};

/// While it lives, ops of this thread leave their outputs in `kept`, or (`room` null) take them from there. `room`:
/// bytes that may still be kept; they get fewer. Both passes must run the same ops on the same inputs.
class KeepScope {
 public:
  KeepScope(Kept& kept, int64_t* room);
  ~KeepScope();
  KeepScope(const KeepScope&) = delete;
  KeepScope& operator=(const KeepScope&) = delete;

 private:
  struct State {
    Kept* kept = nullptr;
    int64_t* room = nullptr;
  };
  State previous_;
  static thread_local State current_;
  friend bool take_kept(std::string_view op, std::initializer_list<Tensor*> outputs);
  friend bool room_to_keep(int64_t bytes);
  friend void keep_outputs(std::string_view op, std::vector<Tensor> outputs);
};

// For ops. Where take_kept gave nothing, the op runs; it saves what backward needs also where room_to_keep says so, and
// hands all of it to keep_outputs (nothing where there was no room), which does nothing outside a pass that keeps.
bool take_kept(std::string_view op, std::initializer_list<Tensor*> outputs);
bool room_to_keep(int64_t bytes);
void keep_outputs(std::string_view op, std::vector<Tensor> outputs);

}  // namespace blockstate
