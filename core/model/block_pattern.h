// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace blockstate::model {

/// Expands the entries of `model.blocks` into the names of sublayers, in order. An entry is names in a row, any of them
/// or a group in parentheses followed by "* count": "(mamba gated_mlp) * 2", "hybrid gated_mlp". Groups may nest.
/// Error names the entry and the place in it.
std::vector<std::string> expand_blocks(const std::vector<std::string>& entries);

}  // namespace blockstate::model
