// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/autograd/variable.h"

namespace blockstate {

/// A flat list of named tensors: the inputs and carry of a segment, or its outputs and carry.
using NamedVariables = std::vector<std::pair<std::string, Variable>>;
using Segment = std::function<NamedVariables(const NamedVariables& inputs)>;

/// Runs `segment` without keeping its activations; backward runs it a second time and then walks it. Gradients of the
/// parameters that the segment uses are added to their leaves as usual. The segment must be a pure function of its
/// inputs, parameters and constants (dropout is: it is keyed). `keep_costly`: what takes long and is small to keep
/// (kept.h) does stay.
NamedVariables recompute(const Segment& segment, const NamedVariables& inputs, bool keep_costly = false);

}  // namespace blockstate
