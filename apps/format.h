// SPDX-License-Identifier: Apache-2.0
// Numbers, sizes and times as people read them. The same in every locale.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace blockstate::apps {

/// 12,345,678
std::string format_count(int64_t count);
/// Three digits and a letter: 950, 12.3k, 1.25M, 4.00G. "n/a" if not finite.
std::string format_short(double quantity);
/// 512 B, 1.50 KiB, 210 MiB
std::string format_bytes(int64_t bytes);
/// Elapsed or remaining time: 0.85 s, 48 s, 3 min 20 s, 1 h 02 min, 2 d 03 h. "n/a" if not finite or negative.
std::string format_duration(double seconds);
/// Decimals after the point that show `value` with `digits` significant digits: 2 for (1.5, 3), 0 for (1234, 3).
int decimals_for(double value, int digits);
/// With that many decimals; very large and very small numbers as 1.2e-07. "n/a" if not finite.
std::string format_fixed(double value, int decimals);
/// With `digits` significant digits, trailing zeros kept so that columns line up: 0.9340, 1.386, 12.34.
std::string format_significant(double value, int digits);

/// Columns a terminal needs for UTF-8 `text`: wide East Asian characters and emoji take two, combining marks none.
int64_t display_width(std::string_view text);
/// `text` filled with blanks to `width` columns, on the right or on the left.
std::string pad_right(std::string_view text, int64_t width);
std::string pad_left(std::string_view text, int64_t width);
/// At most `width` columns of `text`; what is cut ends in "...", where that fits.
std::string clip(std::string_view text, int64_t width);

}  // namespace blockstate::apps
