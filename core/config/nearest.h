// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace blockstate::config {

/// Insertions, deletions, changes and swaps of neighbours that turn `a` into `b` (optimal string alignment), case
/// ignored.
int64_t edit_distance(std::string_view a, std::string_view b);

/// The candidate a person who typed `typed` is likely to have meant, or "" if none is near: at most a third of its
/// letters wrong, or one is the beginning of the other up to a '_' ("batch_size" for "batch"), or its initials
/// ("learning_rate" for "lr"). Among equals the first.
std::string nearest(std::string_view typed, const std::vector<std::string>& candidates);

}  // namespace blockstate::config
