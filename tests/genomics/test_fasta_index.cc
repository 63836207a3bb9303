// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <filesystem>
#include <thread>
#include <vector>

#include "genomics/fasta_cache.h"
#include "genomics/fasta_index.h"
#include "tests/genomics/genomics_files.h"
#include "tests/support/temp_dir.h"

using namespace blockstate;
using namespace blockstate::genomics;
using blockstate::test::error_of;
using blockstate::test::TempDir;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

struct Reference {
  std::vector<std::string> names = {"chr1", "20", "short"};
  std::vector<std::string> bases = {test::random_bases(40007, 11), test::random_bases(9000, 12), "acgtnRYK"};

  std::string text(size_t width, std::string_view line_end = "\n") const {
    std::string out;
    for (size_t i = 0; i < names.size(); ++i) {
      out += ">" + names[i] + " comment" + std::string(line_end) + test::wrapped(bases[i], width, line_end);
    }
    return out;
  }
};

/// Compares stretches at the ends, in the middle and across line ends, and whole records.
void check_against(const FastaIndex& index, const Reference& reference) {
  REQUIRE(index.size() == 3);
  for (int64_t record = 0; record < 3; ++record) {
    const std::string& bases = reference.bases[static_cast<size_t>(record)];
    const auto length = static_cast<int64_t>(bases.size());
    REQUIRE(index.name(record) == reference.names[static_cast<size_t>(record)]);
    REQUIRE(index.length(record) == length);
    CHECK(index.find(index.name(record)) == record);
    CHECK(index.fetch(record, 0, length) == bases);
    for (int64_t begin = 0; begin < length; begin += 1 + length / 23) {
      for (const int64_t count : {int64_t{1}, int64_t{60}, int64_t{61}, int64_t{5000}}) {
        const int64_t end = std::min(length, begin + count);
        if (index.fetch(record, begin, end) !=
            bases.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin))) {
          FAIL_CHECK("bases " << begin << " to " << end << " of record " << record << " differ");
        }
      }
    }
  }
}

struct Warnings {
  std::vector<std::string> texts;
  FastaIndexOptions options(bool write_index = true) {
    return {[this](const std::string& text) { texts.push_back(text); }, write_index};
  }
};

}  // namespace

TEST_CASE("regions of plain and bgzip files are those of the text, with and without an index beside the file") {
  const TempDir folder;
  const Reference reference;
  Warnings warnings;
  for (const std::string& text : {reference.text(60), reference.text(70, "\r\n"), reference.text(100000)}) {
    const std::string plain = folder.write("x.fa", text);
    const std::string packed = folder.file("x.fa.gz");
    test::write_bgzf(packed, text, 4096);
    for (const std::string& file : {plain, packed}) {
      CAPTURE(file);
      fs::remove(file + ".fai");
      fs::remove(file + ".gzi");
      const FastaIndex unsaved(file, warnings.options(false));
      CHECK_FALSE(unsaved.in_memory());
      CHECK_FALSE(fs::exists(file + ".fai"));
      check_against(unsaved, reference);
      check_against(FastaIndex(file, warnings.options()), reference);
      REQUIRE(fs::exists(file + ".fai"));
      REQUIRE(fs::exists(file + ".gzi") == (file == packed));
      const std::string written = test::read_bytes(file + ".fai");
      check_against(FastaIndex(file, warnings.options()), reference);
      CHECK(test::read_bytes(file + ".fai") == written);
    }
  }
  CHECK(warnings.texts.empty());
  // The scratch folders of the indexes are gone.
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator{}) == 5);
}

TEST_CASE("an index is written as samtools writes it") {
  const TempDir folder;
  const std::string file = folder.write("x.fa", ">a b\nACGT\nAC\n>c\r\nGGG\r\nGGG\r\n");
  const FastaIndex index(file);
  CHECK(test::read_bytes(file + ".fai") == "a\t6\t5\t4\t5\nc\t6\t17\t3\t5\n");
}

TEST_CASE("a record may go without a name") {
  const TempDir folder;
  const std::string file = folder.write("x.fa", ">\nACGT\n>  b c\nGG\n");
  for (int round = 0; round < 2; ++round) {
    Warnings warnings;
    const FastaIndex index(file, warnings.options());
    CHECK_FALSE(index.in_memory());
    REQUIRE(index.size() == 2);
    CHECK(index.fetch(index.find(""), 1, 3) == "CG");
    CHECK(index.fetch(index.find("b"), 0, 2) == "GG");
    CHECK(warnings.texts.empty());
  }
}

TEST_CASE("files that no index describes are held in memory") {
  const TempDir folder;
  const Reference reference;
  Warnings warnings;
  const std::string file = folder.file("x.fa.gz");
  test::write_gzip(file, reference.text(60));
  const FastaIndex gzip(file, warnings.options());
  CHECK(gzip.in_memory());
  CHECK_FALSE(fs::exists(file + ".fai"));
  check_against(gzip, reference);
  CHECK(warnings.texts.empty());

  const FastaIndex uneven(folder.write("uneven.fa", ">a\nAC\nACGT\n>b\nTT\n"), warnings.options());
  CHECK(uneven.in_memory());
  CHECK(uneven.fetch(0, 1, 4) == "CAC");
  REQUIRE(warnings.texts.size() == 1);
  CHECK_THAT(warnings.texts[0], Contains("uneven.fa") && Contains("in memory"));

  const FastaIndex twice(folder.write("twice.fa", ">a\nAC\n>b\nGG\n>a\nTT\n"), warnings.options());
  CHECK(twice.in_memory());
  CHECK(twice.size() == 3);
  CHECK(twice.fetch(2, 0, 2) == "TT");
  CHECK_THAT(error_of([&] { twice.find("a"); }), Contains("wanted one record 'a', found 2"));

  const FastaIndex reads(folder.write("x.fq", "@r\nACGT\n+\nIIII\n"), warnings.options());
  CHECK(reads.fetch(0, 0, 4) == "ACGT");
}

TEST_CASE("an index of another time or another file is not believed") {
  const TempDir folder;
  const Reference reference;
  for (const bool packed : {false, true}) {
    Warnings warnings;
    const std::string file = folder.file(packed ? "x.fa.gz" : "x.fa");
    const auto write = [&](const std::string& text) {
      if (packed) {
        test::write_bgzf(file, text);
      } else {
        folder.write("x.fa", text);
      }
    };
    write(">chr1\n" + test::wrapped(reference.bases[1], 50));
    CHECK(FastaIndex(file, warnings.options()).size() == 1);
    const std::string old_index = test::read_bytes(file + ".fai");
    write(reference.text(60));

    SECTION("older than the FASTA") {
      fs::last_write_time(file + ".fai", fs::last_write_time(file) - std::chrono::seconds(5));
      check_against(FastaIndex(file, warnings.options()), reference);
      REQUIRE(warnings.texts.size() == 1);
      CHECK_THAT(warnings.texts[0], Contains(".fai is older than the FASTA"));
    }
    SECTION("newer, but of another file") {
      fs::last_write_time(file + ".fai", fs::last_write_time(file) + std::chrono::seconds(5));
      if (packed) {
        fs::last_write_time(file + ".gzi", fs::last_write_time(file) + std::chrono::seconds(5));
      }
      check_against(FastaIndex(file, warnings.options()), reference);
      REQUIRE(warnings.texts.size() == 1);
      CHECK_THAT(warnings.texts[0],
                 Contains(".fai puts record 'chr1' where the FASTA does not have it") || Contains("block index"));
    }
    CHECK(test::read_bytes(file + ".fai") == old_index);
  }
}

TEST_CASE("an index that is no index is not believed") {
  const TempDir folder;
  const std::string file = folder.write("x.fa", ">a\nACGT\nAC\n>b\nGG\n");
  const std::vector<std::string> bad = {"",
                                        "a\t6\n",
                                        "a\t6\t3\t4\t5\t9\n",
                                        "a\tx\t3\t4\t5\n",
                                        "a\t6\t3\t0\t0\n",
                                        "a\t6\t3\t5\t4\n",
                                        "a\t7\t3\t4\t5\n",
                                        "a\t5\t3\t4\t5\n",
                                        "a\t6\t4\t4\t5\n",
                                        "b\t6\t3\t4\t5\n",
                                        "a\t6\t3\t4\t5\na\t6\t3\t4\t5\n",
                                        "a\t6\t9000000000000000000\t4\t5\n",
                                        "a\t6\t900000\t4\t5\n",
                                        "a\t900000\t3\t4\t5\n",
                                        "a\t6\t3\t4\t8\n",
                                        std::string("\0\xff\n", 3)};
  for (const std::string& text : bad) {
    CAPTURE(text);
    folder.write("x.fa.fai", text);
    Warnings warnings;
    const FastaIndex index(file, warnings.options());
    CHECK(warnings.texts.size() == 1);
    REQUIRE(index.size() == 2);
    CHECK(index.fetch(0, 0, 6) == "ACGTAC");
    CHECK(test::read_bytes(file + ".fai") == text);
  }
  // The same check lets the right one pass.
  folder.write("x.fa.fai", "a\t6\t3\t4\t5\nb\t2\t14\t2\t3\n");
  Warnings warnings;
  CHECK(FastaIndex(file, warnings.options()).fetch(1, 0, 2) == "GG");
  CHECK(warnings.texts.empty());
}

TEST_CASE("a block index that is wrong in any number is not believed") {
  const TempDir folder;
  const Reference reference;
  const std::string file = folder.file("x.fa.gz");
  test::write_bgzf(file, reference.text(60), 9000);
  Warnings warnings;
  check_against(FastaIndex(file, warnings.options()), reference);
  check_against(FastaIndex(file, warnings.options()), reference);
  CHECK(warnings.texts.empty());
  const std::string right = test::read_bytes(file + ".gzi");
  size_t expected = 0;
  for (size_t byte = 0; byte < right.size(); byte += 4) {
    std::string wrong = right;
    wrong[byte] = static_cast<char>(wrong[byte] + 1);
    folder.write("x.fa.gz.gzi", wrong);
    check_against(FastaIndex(file, warnings.options()), reference);
    CHECK(warnings.texts.size() == ++expected);
  }
  folder.write("x.fa.gz.gzi", std::string_view(right).substr(0, right.size() - 16));
  check_against(FastaIndex(file, warnings.options()), reference);
  CHECK(warnings.texts.size() == expected + 1);
}

TEST_CASE("a folder that cannot be written gets no index") {
  const TempDir folder;
  const Reference reference;
  const std::string file = folder.write("x.fa", reference.text(60));
  fs::permissions(folder.path(), fs::perms::owner_read | fs::perms::owner_exec);
  check_against(FastaIndex(file), reference);
  fs::permissions(folder.path(), fs::perms::owner_all);
  // The superuser writes anywhere.
  CHECK(fs::exists(file + ".fai") == (geteuid() == 0));
}

TEST_CASE("regions and records that are not there are refused in a sentence") {
  const TempDir folder;
  const FastaIndex index(folder.write("x.fa", Reference().text(60)));
  CHECK_THAT(error_of([&] { index.fetch(0, 40000, 40008); }),
             Contains("x.fa: region chr1:40001-40008") && Contains("40007 bases"));
  CHECK_THAT(error_of([&] { index.fetch(0, -1, 5); }), Contains("40007 bases"));
  CHECK_THAT(error_of([&] { index.fetch(0, 5, 5); }), Contains("chr1:6-5"));
  CHECK_THAT(error_of([&] { index.fetch(3, 0, 1); }), Contains("found 3 records"));
  CHECK_THAT(error_of([&] { index.find("chr20"); }), Contains("no record 'chr20'") && Contains("did you mean '20'?"));
  CHECK_THAT(error_of([&] { index.find("1"); }), Contains("did you mean 'chr1'?"));
  CHECK_THAT(error_of([&] { index.find("x"); }), Contains("it has 'chr1', '20', 'short'"));
  std::string many;
  for (int i = 0; i < 12; ++i) {
    many += ">r" + std::to_string(i) + "\nA\n";
  }
  CHECK_THAT(error_of([&] { FastaIndex(folder.write("many.fa", many)).find("x"); }), Contains("'r4' and 7 more"));
}

TEST_CASE("a bgzip file cut short is refused when it is opened") {
  const TempDir folder;
  const std::string file = folder.file("x.fa.gz");
  test::write_bgzf(file, Reference().text(60));
  const std::string whole = test::read_bytes(file);
  folder.write("x.fa.gz", std::string_view(whole).substr(0, whole.size() / 2));
  CHECK_THAT(error_of([&] { FastaIndex{file}; }), Contains("x.fa.gz") && Contains("cut short"));
}

TEST_CASE("one index serves many threads") {
  const TempDir folder;
  const Reference reference;
  const std::string file = folder.file("x.fa.gz");
  test::write_bgzf(file, reference.text(60), 3000);
  const FastaIndex index(file);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = 0; i < 300; ++i) {
        const int64_t begin = (i * 7919 + static_cast<int64_t>(t) * 104729) % 39000;
        const std::string expected = reference.bases[0].substr(static_cast<size_t>(begin), 1000);
        wrong[t] += index.fetch(0, begin, begin + 1000) != expected;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("the cache keeps the files used last open and those in memory for good") {
  const TempDir folder;
  const std::string gzip = folder.file("z.fa.gz");
  test::write_gzip(gzip, ">z\nACGT\n");
  FastaCache cache({}, 2);
  const auto held = cache.get(gzip);
  std::vector<std::string> files;
  for (const std::string name : {"a", "b", "c"}) {
    files.push_back(folder.write(name + ".fa", ">" + name + "\nACGT\n"));
  }
  const auto first = cache.get(files[0]);
  CHECK(cache.get(files[0]) == first);
  cache.get(files[1]);
  CHECK(cache.get(files[0]) == first);
  cache.get(files[2]);
  CHECK(cache.open_files() == 2);
  CHECK(cache.get(files[0]) == first);  // b went, as the one unused for longest
  cache.get(files[1]);
  cache.get(files[2]);
  CHECK(cache.get(files[0]) != first);
  CHECK(first->fetch(0, 0, 4) == "ACGT");
  CHECK(cache.get(gzip) == held);
}
