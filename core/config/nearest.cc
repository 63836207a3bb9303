// SPDX-License-Identifier: Apache-2.0
#include "core/config/nearest.h"

#include <algorithm>
#include <cctype>

namespace blockstate::config {
namespace {

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

std::string initials(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == 0 || text[i - 1] == '_') {
      result += text[i];
    }
  }
  return result;
}

bool extends(std::string_view longer, std::string_view shorter) {
  return longer.size() > shorter.size() && longer.substr(0, shorter.size()) == shorter && longer[shorter.size()] == '_';
}

}  // namespace

int64_t edit_distance(std::string_view a, std::string_view b) {
  const size_t rows = a.size() + 1;
  const size_t columns = b.size() + 1;
  std::vector<int64_t> cost(rows * columns);
  const auto at = [&](size_t i, size_t j) -> int64_t& { return cost[i * columns + j]; };
  for (size_t i = 0; i < rows; ++i) {
    for (size_t j = 0; j < columns; ++j) {
      if (i == 0 || j == 0) {
        at(i, j) = static_cast<int64_t>(i + j);
        continue;
      }
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      at(i, j) = std::min({at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + (same ? 0 : 1)});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
        at(i, j) = std::min(at(i, j), at(i - 2, j - 2) + 1);
      }
    }
  }
  return cost.back();
}

std::string nearest(std::string_view typed, const std::vector<std::string>& candidates) {
  std::string best;
  int64_t best_distance = INT64_MAX;
  for (const std::string& candidate : candidates) {
    const int64_t distance = edit_distance(typed, candidate);
    const auto allowed = std::max<int64_t>(1, static_cast<int64_t>(std::max(typed.size(), candidate.size())) / 3);
    // One letter for another is no likeness in a key of one or two letters.
    const bool near = distance <= allowed && distance < static_cast<int64_t>(std::min(typed.size(), candidate.size()));
    if (near && distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  for (const std::string& candidate : candidates) {
    if (best.empty() && (extends(typed, candidate) || extends(candidate, typed) ||
                         (candidate.size() > 1 && (initials(typed) == candidate || initials(candidate) == typed)))) {
      best = candidate;
    }
  }
  return best;
}

}  // namespace blockstate::config
