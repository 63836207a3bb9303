// SPDX-License-Identifier: Apache-2.0
#include "core/model/block_pattern.h"

#include <cctype>

#include "core/base/check.h"

namespace blockstate::model {
namespace {

constexpr size_t kMostSublayers = 10000;

class Parser {
 public:
  explicit Parser(const std::string& text) : text_(text) {}

  std::vector<std::string> parse() {
    std::vector<std::string> names = sequence();
    if (at_ < text_.size()) {
      stop("unexpected \"", text_[at_], "\"");
    }
    return names;
  }

 private:
  std::vector<std::string> sequence() {
    std::vector<std::string> names;
    for (skip_space(); at_ < text_.size() && text_[at_] != ')'; skip_space()) {
      const std::vector<std::string> item = repeated();
      names.insert(names.end(), item.begin(), item.end());
      if (names.size() > kMostSublayers) {
        stop("more than ", kMostSublayers, " sublayers");
      }
    }
    return names;
  }

  std::vector<std::string> repeated() {
    std::vector<std::string> item;
    if (text_[at_] == '(') {
      ++at_;
      item = sequence();
      if (at_ >= text_.size()) {
        stop("\")\" is missing");
      }
      ++at_;
    } else {
      item = {name()};
    }
    skip_space();
    if (at_ >= text_.size() || text_[at_] != '*') {
      return item;
    }
    ++at_;
    skip_space();
    const int64_t times = count();
    std::vector<std::string> all;
    for (int64_t i = 0; i < times; ++i) {
      all.insert(all.end(), item.begin(), item.end());
    }
    return all;
  }

  std::string name() {
    const size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) {
      ++at_;
    }
    if (at_ == begin) {
      stop("a name was wanted, found \"", text_[at_], "\"");
    }
    return text_.substr(begin, at_ - begin);
  }

  int64_t count() {
    int64_t value = 0;
    const size_t begin = at_;
    while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])) && value < 100000) {
      value = 10 * value + (text_[at_++] - '0');
    }
    if (at_ == begin || value < 1 || value > static_cast<int64_t>(kMostSublayers)) {
      stop("a count from 1 to ", kMostSublayers, " was wanted after \"*\"");
    }
    return value;
  }

  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) {
      ++at_;
    }
  }

  template <class... Parts>
  [[noreturn]] void stop(const Parts&... parts) const {
    fail("model.blocks: in \"", text_, "\" at character ", at_ + 1, ": ", parts...);
  }

  const std::string& text_;
  size_t at_ = 0;
};

}  // namespace

std::vector<std::string> expand_blocks(const std::vector<std::string>& entries) {
  std::vector<std::string> names;
  for (const std::string& entry : entries) {
    const std::vector<std::string> expanded = Parser(entry).parse();
    names.insert(names.end(), expanded.begin(), expanded.end());
    require(names.size() <= kMostSublayers, "model.blocks: more than ", kMostSublayers, " sublayers");
  }
  require(!names.empty(), "model.blocks: names no sublayer; write for example blocks = [\"(mamba gated_mlp) * 4\"]");
  return names;
}

}  // namespace blockstate::model
