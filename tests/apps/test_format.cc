// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>

#include "apps/format.h"

namespace blockstate::apps {
namespace {

TEST_CASE("counts have commas", "[cpu]") {
  CHECK(format_count(0) == "0");
  CHECK(format_count(999) == "999");
  CHECK(format_count(1000) == "1,000");
  CHECK(format_count(-12345678) == "-12,345,678");
  CHECK(format_count(-999) == "-999");
  CHECK(format_count(INT64_MIN) == "-9,223,372,036,854,775,808");
}

TEST_CASE("short quantities and bytes keep three digits, also where rounding carries", "[cpu]") {
  CHECK(format_short(0) == "0");
  CHECK(format_short(0.5) == "0.500");
  CHECK(format_short(950) == "950");
  CHECK(format_short(999.4) == "999");
  CHECK(format_short(999.6) == "1.00k");
  CHECK(format_short(9996) == "10.0k");
  CHECK(format_short(12345) == "12.3k");
  CHECK(format_short(1.25e6) == "1.25M");
  CHECK(format_short(4e15) == "4000T");
  CHECK(format_short(NAN) == "n/a");
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1024) == "1.00 KiB");
  CHECK(format_bytes(1536) == "1.50 KiB");
  CHECK(format_bytes(1048575) == "1.00 MiB");
  CHECK(format_bytes(int64_t{210} << 20) == "210 MiB");
}

TEST_CASE("times change their unit without saying 60", "[cpu]") {
  CHECK(format_duration(0) == "0.00 s");
  CHECK(format_duration(0.853) == "0.85 s");
  CHECK(format_duration(0.997) == "1.0 s");
  CHECK(format_duration(9.96) == "10 s");
  CHECK(format_duration(59.4) == "59 s");
  CHECK(format_duration(59.6) == "1 min 00 s");
  CHECK(format_duration(200) == "3 min 20 s");
  CHECK(format_duration(3599.7) == "1 h 00 min");
  CHECK(format_duration(3 * 86400 + 2 * 3600) == "3 d 02 h");
  CHECK(format_duration(-1) == "n/a");
  CHECK(format_duration(INFINITY) == "n/a");
}

TEST_CASE("significant digits keep their zeros", "[cpu]") {
  CHECK(format_significant(0.934, 4) == "0.9340");
  CHECK(format_significant(1.3863, 4) == "1.386");
  CHECK(format_significant(12.3456, 4) == "12.35");
  CHECK(format_significant(9.9996, 4) == "10.00");
  CHECK(format_significant(123456, 4) == "123456");
  CHECK(format_significant(0, 4) == "0.000");
  CHECK(format_significant(-0.05, 2) == "-0.050");
  CHECK(format_significant(1.234e-7, 4) == "1.23e-07");
  CHECK(format_significant(1e300, 4) == "1e+300");
  CHECK(format_significant(-INFINITY, 4) == "n/a");
}

TEST_CASE("width counts columns, not bytes", "[cpu]") {
  CHECK(display_width("abc") == 3);
  CHECK(display_width("Größe") == 5);
  CHECK(display_width("音声") == 4);
  CHECK(display_width("e\xCC\x81") == 1);
  CHECK(display_width("\xff\xfe") == 2);
  CHECK(display_width("\xe9\x9f") == 2);
  CHECK(pad_left("音", 4) == "  音");
  CHECK(pad_right("音", 4) == "音  ");
  CHECK(pad_right("long", 2) == "long");
  CHECK(clip("abcdefgh", 8) == "abcdefgh");
  CHECK(clip("abcdefgh", 7) == "abcd...");
  CHECK(clip("abcdefgh", 3) == "abc");
  CHECK(clip("音声認識", 7) == "音声...");
  CHECK(clip("abc", 0).empty());
}

}  // namespace
}  // namespace blockstate::apps
