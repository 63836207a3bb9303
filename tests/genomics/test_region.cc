// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "genomics/region.h"
#include "tests/genomics/genomics_files.h"
#include "tests/support/temp_dir.h"

using namespace blockstate;
using namespace blockstate::genomics;
using blockstate::test::error_of;
using blockstate::test::TempDir;
using Catch::Matchers::Contains;

namespace {

void check_region(const Region& region, const std::string& record, int64_t begin, int64_t end) {
  CHECK(region.record == record);
  CHECK(region.begin == begin);
  CHECK(region.end == end);
}

std::string bed_error(const TempDir& folder, const std::string& text) {
  return error_of([&] { read_bed(folder.write("x.bed", text)); });
}

}  // namespace

TEST_CASE("region text counts from 1 and includes its end") {
  check_region(parse_region("chr1"), "chr1", 0, Region::kToTheEnd);
  check_region(parse_region("chr1:101-200"), "chr1", 100, 200);
  check_region(parse_region("chr1:101-101"), "chr1", 100, 101);
  check_region(parse_region("chr1:1,000,001-2,000,000"), "chr1", 1000000, 2000000);
  check_region(parse_region("chr1:101"), "chr1", 100, Region::kToTheEnd);
  check_region(parse_region("a:1-5:11-20"), "a:1-5", 10, 20);
  check_region(parse_region("a:1-5", [](std::string_view name) { return name == "a:1-5"; }), "a:1-5", 0,
               Region::kToTheEnd);
  check_region(parse_region("{a:1-5}"), "a:1-5", 0, Region::kToTheEnd);
  check_region(parse_region("{a:1-5}:2-3"), "a:1-5", 1, 3);
  check_region(parse_region("x:3000000000-4000000000"), "x", 2999999999, 4000000000);
}

TEST_CASE("region text that says nothing is refused") {
  const auto message = [](const std::string& text) { return error_of([&] { parse_region(text); }); };
  CHECK_THAT(message(""), Contains("name of a record"));
  CHECK_THAT(message(":1-2"), Contains("name of a record"));
  CHECK_THAT(message("a:0-5"), Contains("'a:0-5'") && Contains("from 1 on") && Contains("'0'"));
  CHECK_THAT(message("a:x-5"), Contains("found 'x'"));
  CHECK_THAT(message("a:5-"), Contains("found ''"));
  CHECK_THAT(message("a:7-5"), Contains("wanted an end from 7 on, found 5"));
  CHECK_THAT(message("a:99999999999999999999"), Contains("99999999999999999999"));
  CHECK_THAT(message("{a}x"), Contains("':'"));
}

TEST_CASE("BED files give regions, labels and strands") {
  const TempDir folder;
  const std::string text =
      "# made by hand\ntrack name=x\nbrowser position chr1\n\nchr1\t0\t10\nchr2\t5\t9\tenhancer\t0\t-\r\n"
      "chr2 7 8 other 0 .\ntrack7\t1\t3000000000\tenhancer\t0\t+\n";
  const std::string plain = folder.write("x.bed", text);
  test::write_gzip(plain + ".gz", text);
  for (const std::string& file : {plain, plain + ".gz"}) {
    const std::vector<Region> regions = read_bed(file);
    REQUIRE(regions.size() == 4);
    check_region(regions[0], "chr1", 0, 10);
    CHECK(regions[0].label.empty());
    CHECK(regions[0].line == 5);
    check_region(regions[1], "chr2", 5, 9);
    CHECK(regions[1].label == "enhancer");
    CHECK(regions[1].strand == Strand::kReverse);
    check_region(regions[2], "chr2", 7, 8);
    CHECK(regions[2].strand == Strand::kForward);
    check_region(regions[3], "track7", 1, 3000000000);
    CHECK(region_labels(regions) == std::vector<std::string>{"enhancer", "other"});
  }
}

TEST_CASE("bad lines of BED files are named") {
  const TempDir folder;
  CHECK_THAT(bed_error(folder, "chr1\t0\t10\nchr1\t5\n"),
             Contains("x.bed, line 2") && Contains("3 columns") && Contains("found 2"));
  CHECK_THAT(bed_error(folder, "chr1\t9\t5\n"), Contains("wanted an end above the begin 9, found 5"));
  CHECK_THAT(bed_error(folder, "chr1\t5\t5\n"), Contains("found 5"));
  CHECK_THAT(bed_error(folder, "chr1\t-1\t5\n"), Contains("from 0 on") && Contains("'-1'"));
  CHECK_THAT(bed_error(folder, "chr1\tstart\tend\n"), Contains("'start'"));
  CHECK_THAT(bed_error(folder, "chr1\t1\t2x\n"), Contains("'2x'"));
  CHECK_THAT(bed_error(folder, "chr1\t1\t2\tl\t0\tx\n"), Contains("strand") && Contains("'x'"));
  CHECK_THAT(bed_error(folder, "\t1\t2\n"), Contains("column 1"));
  CHECK_THAT(bed_error(folder, "# nothing\n"), Contains("found none"));
  CHECK_THAT(error_of([&] { read_bed(folder.file("none.bed")); }), Contains("none.bed"));
}

TEST_CASE("windows cover a stretch once, or with the hop asked for") {
  struct Expected {
    Tiling tiling;
    int64_t extent;
    std::vector<std::pair<int64_t, int64_t>> windows;
  };
  const std::vector<Expected> cases = {
      {{0, 0, 1}, 7, {{0, 7}}},
      {{3, 0, 1}, 7, {{0, 3}, {3, 6}, {6, 7}}},
      {{3, 0, 2}, 7, {{0, 3}, {3, 6}}},
      {{3, 0, 1}, 6, {{0, 3}, {3, 6}}},
      {{3, 0, 1}, 2, {{0, 2}}},
      {{3, 0, 3}, 2, {}},
      {{4, 2, 1}, 7, {{0, 4}, {2, 6}, {4, 7}}},
      {{4, 2, 1}, 6, {{0, 4}, {2, 6}}},
      {{2, 3, 1}, 7, {{0, 2}, {3, 5}, {6, 7}}},
      {{2, 5, 1}, 7, {{0, 2}, {5, 7}}},
      {{2, 9, 1}, 7, {{0, 2}}},
  };
  for (const Expected& expected : cases) {
    CAPTURE(expected.tiling.length, expected.tiling.hop, expected.tiling.min_length, expected.extent);
    REQUIRE(expected.tiling.count(expected.extent) == static_cast<int64_t>(expected.windows.size()));
    for (size_t i = 0; i < expected.windows.size(); ++i) {
      const auto [first, last] = expected.windows[i];
      int64_t begin = 100;
      int64_t end = 100 + expected.extent;
      expected.tiling.window(static_cast<int64_t>(i), Strand::kForward, begin, end);
      CHECK(begin == 100 + first);
      CHECK(end == 100 + last);
      begin = 100;
      end = 100 + expected.extent;
      expected.tiling.window(static_cast<int64_t>(i), Strand::kReverse, begin, end);
      CHECK(begin == 100 + expected.extent - last);
      CHECK(end == 100 + expected.extent - first);
    }
  }
  CHECK(Tiling{1024, 0, 1}.count(int64_t{1} << 40) == int64_t{1} << 30);
  CHECK_THAT(error_of([] { Tiling{-1, 0, 1}.check(); }), Contains("data.length") && Contains("-1"));
  CHECK_THAT(error_of([] { Tiling{4, -1, 1}.check(); }), Contains("data.hop"));
  CHECK_THAT(error_of([] { Tiling{4, 0, 5}.check(); }), Contains("data.min_length") && Contains("found 5"));
}
