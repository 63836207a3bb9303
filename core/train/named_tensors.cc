// SPDX-License-Identifier: Apache-2.0
#include "core/train/named_tensors.h"

#include <algorithm>
#include <vector>

#include "core/autograd/variable.h"
#include "core/base/check.h"

namespace blockstate::train {
namespace {

std::string describe(const Tensor& tensor) { return join(dtype_name(tensor.dtype()), " ", shape_text(tensor.shape())); }

}  // namespace

void copy_tensors(const NamedTensors& to, const NamedTensors& from, const std::string& file, const std::string& what) {
  constexpr size_t kListed = 8;
  std::vector<std::string> problems;
  for (const auto& [name, target] : to) {
    const auto found = from.find(name);
    if (found == from.end()) {
      problems.push_back(join("\"", name, "\" is missing, wanted ", describe(target)));
    } else if (found->second.shape() != target.shape() || found->second.dtype() != target.dtype()) {
      problems.push_back(join("\"", name, "\" is ", describe(found->second), ", wanted ", describe(target)));
    }
  }
  for (const auto& [name, tensor] : from) {
    if (to.count(name) == 0) {
      problems.push_back(join("\"", name, "\", ", describe(tensor), ", is none of its tensors"));
    }
  }
  if (!problems.empty()) {
    std::string list;
    for (size_t i = 0; i < std::min(problems.size(), kListed); ++i) {
      list += (i > 0 ? "; " : "") + problems[i];
    }
    fail(file, ": does not fit ", what, ": ", list,
         problems.size() > kListed ? join("; and ", problems.size() - kListed, " more") : "");
  }
  for (const auto& [name, tensor] : from) {
    Tensor target = to.at(name);
    target.copy_from(tensor);
  }
  parameters_changed();
}

}  // namespace blockstate::train
