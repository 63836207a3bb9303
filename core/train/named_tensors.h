// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "core/tensor/tensor.h"

namespace blockstate::train {

using NamedTensors = std::map<std::string, Tensor>;

/// Copies each tensor of `from` into the elements of its namesake in `to`. Nothing is changed if one is missing,
/// unexpected, or of another shape or type: the Error then lists them (name, wanted, found). `file`: where `from` was
/// read; `what`: what `to` belongs to, such as "the model".
void copy_tensors(const NamedTensors& to, const NamedTensors& from, const std::string& file, const std::string& what);

}  // namespace blockstate::train
