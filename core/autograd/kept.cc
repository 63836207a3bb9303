// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/kept.h"

#include <algorithm>

namespace blockstate {

thread_local KeepScope::State KeepScope::current_;

KeepScope::KeepScope(Kept& kept, KeepRoom* room) : previous_(current_) { current_ = {&kept, room}; }
KeepScope::~KeepScope() { current_ = previous_; }

bool take_kept(std::string_view op, std::initializer_list<Tensor*> outputs) {
  const KeepScope::State& state = KeepScope::current_;
  // An op that a pass without gradients has done in another way left no entry.
  if (state.kept == nullptr || state.room != nullptr || state.kept->next == state.kept->entries.size() ||
      state.kept->entries[state.kept->next].op != op) {
    return false;
  }
  Kept::Entry& entry = state.kept->entries[state.kept->next++];
  if (entry.outputs.empty()) {
    return false;
  }
  size_t i = 0;
  for (Tensor* output : outputs) {
    *output = std::move(entry.outputs[i++]);
  }
  return true;
}

Keeping room_to_keep(int64_t all, int64_t little) {
  const KeepScope::State& state = KeepScope::current_;
  if (state.kept == nullptr || state.room == nullptr) {
    return Keeping::kNothing;
  }
  KeepRoom& room = *state.room;
  if (!room.little_only && room.bytes - room.promised >= all) {
    room.bytes -= all;
    return Keeping::kAll;
  }
  if (little > 0 && room.bytes >= little) {
    room.bytes -= little;
    return little == all ? Keeping::kAll : Keeping::kLittle;
  }
  return Keeping::kNothing;
}

bool will_repeat() { return KeepScope::current_.kept != nullptr && KeepScope::current_.room != nullptr; }

void keep_outputs(std::string_view op, std::vector<Tensor> outputs) {
  const KeepScope::State& state = KeepScope::current_;
  if (state.kept != nullptr && state.room != nullptr) {
    state.kept->entries.push_back({op, std::move(outputs)});
  }
}

}  // namespace blockstate
