// SPDX-License-Identifier: Apache-2.0
#include "apps/format.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/base/check.h"

namespace blockstate::apps {
namespace {

constexpr const char* kNotAvailable = "n/a";
constexpr char32_t kNoCharacter = 0xFFFD;  // what terminals show for bytes that are no UTF-8

std::string two_digits(int64_t value) { return join(value < 10 ? "0" : "", value); }

/// Decodes the character at `at` and moves behind it; a byte that is no UTF-8 counts as one character.
char32_t next_character(std::string_view text, size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const size_t length = lead < 0xC2 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 1;
  char32_t character = length == 1 ? (lead < 0x80 ? lead : kNoCharacter) : lead & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if (at + i >= text.size() || (static_cast<unsigned char>(text[at + i]) & 0xC0) != 0x80) {
      ++at;
      return kNoCharacter;
    }
    character = (character << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3F);
  }
  at += length;
  return character;
}

int64_t character_width(char32_t c) {
  struct Range {
    char32_t first;
    char32_t last;
  };
  constexpr std::array<Range, 6> kNone = {
      {{0x0300, 0x036F}, {0x200B, 0x200F}, {0x1AB0, 0x1AFF}, {0x1DC0, 0x1DFF}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}}};
  constexpr std::array<Range, 8> kWide = {{{0x1100, 0x115F},
                                           {0x2E80, 0xA4CF},
                                           {0xAC00, 0xD7A3},
                                           {0xF900, 0xFAFF},
                                           {0xFE30, 0xFE6F},
                                           {0xFF00, 0xFF60},
                                           {0x1F300, 0x1FAFF},
                                           {0x20000, 0x3FFFD}}};
  const auto holds = [c](const Range& range) { return c >= range.first && c <= range.last; };
  if (c < 0x20 || (c >= 0x7F && c < 0xA0) || std::any_of(kNone.begin(), kNone.end(), holds)) {
    return 0;
  }
  return std::any_of(kWide.begin(), kWide.end(), holds) ? 2 : 1;
}

}  // namespace

std::string format_count(int64_t count) {
  std::string digits = std::to_string(count);
  const size_t first = count < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) {
    at -= 3;
    digits.insert(at, 1, ',');
  }
  return digits;
}

std::string format_short(double quantity) {
  if (!std::isfinite(quantity)) {
    return kNotAvailable;
  }
  constexpr std::array<const char*, 5> kLetters = {"", "k", "M", "G", "T"};
  size_t step = 0;
  // 999.5 and more would be printed as 1000.
  while (std::fabs(quantity) >= 999.5 && step + 1 < kLetters.size()) {
    quantity /= 1000;
    ++step;
  }
  const bool whole = step == 0 && quantity == std::floor(quantity);
  return join(format_fixed(quantity, whole ? 0 : decimals_for(quantity, 3)), kLetters[step]);
}

std::string format_bytes(int64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto amount = static_cast<double>(bytes);
  size_t step = 0;
  while (std::fabs(amount) >= 1023.5 && step + 1 < kUnits.size()) {
    amount /= 1024;
    ++step;
  }
  return join(format_fixed(amount, step == 0 ? 0 : decimals_for(amount, 3)), " ", kUnits[step]);
}

std::string format_duration(double seconds) {
  // Beyond a thousand years the number is no time anybody waits for.
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 3e10) {
    return kNotAvailable;
  }
  if (seconds < 9.95) {
    return join(format_fixed(seconds, seconds < 0.995 ? 2 : 1), " s");
  }
  const int64_t whole = std::llround(seconds);
  if (whole < 60) {
    return join(whole, " s");
  }
  if (whole < 3600) {
    return join(whole / 60, " min ", two_digits(whole % 60), " s");
  }
  if (whole < 86400) {
    return join(whole / 3600, " h ", two_digits(whole % 3600 / 60), " min");
  }
  return join(whole / 86400, " d ", two_digits(whole % 86400 / 3600), " h");
}

int decimals_for(double value, int digits) {
  if (!std::isfinite(value) || value == 0) {
    return digits - 1;
  }
  // Through the printed form, because rounding may add a digit: 9.996 with three digits is 10.0.
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%.*e", digits - 1, value);
  const int exponent = std::atoi(std::find(text.begin(), text.end(), 'e') + 1);
  return std::max(0, digits - 1 - exponent);
}

std::string format_fixed(double value, int decimals) {
  if (!std::isfinite(value)) {
    return kNotAvailable;
  }
  std::array<char, 64> text{};
  const bool plain = value == 0 || (std::fabs(value) >= 1e-5 && std::fabs(value) < 1e15);
  if (plain) {
    std::snprintf(text.data(), text.size(), "%.*f", std::min(decimals, 20), value);
  } else {
    std::snprintf(text.data(), text.size(), "%.3g", value);
  }
  return text.data();
}

std::string format_significant(double value, int digits) { return format_fixed(value, decimals_for(value, digits)); }

int64_t display_width(std::string_view text) {
  int64_t width = 0;
  for (size_t at = 0; at < text.size();) {
    width += character_width(next_character(text, at));
  }
  return width;
}

std::string pad_right(std::string_view text, int64_t width) {
  return join(text, std::string(static_cast<size_t>(std::max<int64_t>(0, width - display_width(text))), ' '));
}

std::string pad_left(std::string_view text, int64_t width) {
  return join(std::string(static_cast<size_t>(std::max<int64_t>(0, width - display_width(text))), ' '), text);
}

std::string clip(std::string_view text, int64_t width) {
  if (display_width(text) <= width) {
    return std::string(text);
  }
  const std::string_view dots = width >= 6 ? "..." : "";
  int64_t used = static_cast<int64_t>(dots.size());
  size_t end = 0;
  for (size_t at = 0; at < text.size(); end = at) {
    used += character_width(next_character(text, at));
    if (used > width) {
      break;
    }
  }
  return join(text.substr(0, end), dots);
}

}  // namespace blockstate::apps
