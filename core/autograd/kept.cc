// SPDX-License-Identifier: Apache-2.0
#include "core/autograd/kept.h"

#include <algorithm>

namespace blockstate {

thread_local KeepScope::State KeepScope::current_;

KeepScope::KeepScope() : previous_(current_) {}
KeepScope::~KeepScope() { current_ = previous_; }

LeaveScope::LeaveScope(Kept& target, KeepRoom& room) {
  current_.target = &target;
  current_.room = &room;
}

TakeScope::TakeScope(Kept& source) { current_ = {&source, nullptr, nullptr}; }

bool take_kept(std::string_view op, std::initializer_list<Tensor*> outputs) {
  Kept* const source = KeepScope::current_.source;
  // An op that a pass without gradients has done in another way left no entry.
  if (source == nullptr || source->next == source->entries.size() || source->entries[source->next].op != op) {
    return false;
  }
  Kept::Entry& entry = source->entries[source->next++];
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
  if (KeepScope::current_.target == nullptr) {
    return Keeping::kNothing;
  }
  KeepRoom& room = *KeepScope::current_.room;
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

bool will_repeat() { return KeepScope::current_.target != nullptr; }

void keep_outputs(std::string_view op, std::vector<Tensor> outputs) {
  if (Kept* const target = KeepScope::current_.target) {
    target->entries.push_back({op, std::move(outputs)});
  }
}

}  // namespace blockstate
