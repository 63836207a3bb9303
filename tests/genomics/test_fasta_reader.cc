// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <vector>

#include "genomics/fasta_reader.h"
#include "tests/genomics/genomics_files.h"
#include "tests/support/temp_dir.h"

using namespace blockstate;
using namespace blockstate::genomics;
using blockstate::test::error_of;
using blockstate::test::TempDir;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

namespace {

std::vector<SequenceRecord> all_records(const std::string& file) {
  FastaReader reader(file);
  std::vector<SequenceRecord> records;
  SequenceRecord record;
  while (reader.next(record)) {
    records.push_back(record);
  }
  return records;
}

std::string read_error(const std::string& file) {
  return error_of([&] { all_records(file); });
}

}  // namespace

TEST_CASE("FASTA records are read whatever their lines and packing") {
  const TempDir folder;
  const std::string bases = test::random_bases(150001, 1);
  const std::string unix_text = ">one  first of two\n" + test::wrapped(bases, 60) + "\n>two\nacgtn\nRY\n";
  const std::string dos_text = ">one  first of two\r\n" + test::wrapped(bases, 70, "\r\n") + ">two\r\nacgtnRY";
  const std::string line_text = "\n\n> one\tfirst of two\n" + bases + " \n>two\nacgt\n\nnRY";
  const std::string file = folder.file("x.fa");
  const auto check = [&](const std::string& path) {
    const auto records = all_records(path);
    REQUIRE(records.size() == 2);
    CHECK(records[0].name == "one");
    CHECK(records[0].comment == "first of two");
    CHECK(records[0].bases == bases);
    CHECK(records[1].name == "two");
    CHECK(records[1].comment.empty());
    CHECK(records[1].bases == "acgtnRY");
  };
  for (const std::string& text : {unix_text, dos_text, line_text}) {
    check(folder.write("x.fa", text));
    test::write_gzip(file + ".gz", text);
    CHECK(BgzfLines(file + ".gz").packing() == Packing::kGzip);
    check(file + ".gz");
    test::write_bgzf(file + ".bgz", text, 777);
    CHECK(BgzfLines(file + ".bgz").packing() == Packing::kBgzf);
    check(file + ".bgz");
  }
  CHECK(all_records(folder.write("l.fa", ">a\nA\n>b\n\nC\n"))[1].line == 3);
}

TEST_CASE("gzip members that follow each other are one file") {
  const TempDir folder;
  test::write_gzip(folder.file("a.gz"), ">a\nACGT\n");
  test::write_gzip(folder.file("b.gz"), "TT\n>b\nGG\n");
  const std::string both = test::read_bytes(folder.file("a.gz")) + test::read_bytes(folder.file("b.gz"));
  const auto records = all_records(folder.write("ab.gz", both));
  REQUIRE(records.size() == 2);
  CHECK(records[0].bases == "ACGTTT");
  CHECK(records[1].bases == "GG");
}

TEST_CASE("FASTQ records give their bases") {
  const TempDir folder;
  const std::string text = "@r1 lane 1\nACGT\n+\n@+>I\n@r2\r\nAC\r\nGT\r\n+r2\r\nII\r\nII\r\n\n@r3\nN\n+\n!";
  const auto records = all_records(folder.write("x.fq", text));
  REQUIRE(records.size() == 3);
  CHECK(records[0].name == "r1");
  CHECK(records[0].comment == "lane 1");
  CHECK(records[0].bases == "ACGT");
  CHECK(records[1].bases == "ACGT");
  CHECK(records[2].bases == "N");
}

TEST_CASE("files that are no sequence files are refused in a sentence") {
  const TempDir folder;
  CHECK_THAT(read_error(folder.file("none.fa")), Contains("none.fa: no such file"));
  CHECK_THAT(read_error(folder.path().string()), Contains("found a directory"));
  CHECK_THAT(read_error(folder.write("empty.fa", "")), Contains("found an empty file"));
  CHECK_THAT(read_error(folder.write("blank.fa", "\n \n")), Contains("only blank lines"));
  CHECK_THAT(read_error(folder.write("bare.fa", "\nACGT\n")), Contains("bare.fa, line 2") && Contains("found 'A'"));
  CHECK_THAT(read_error(folder.write("junk.fa", std::string("\x00\xff\x01>", 4))), Contains("byte 0x00"));
  test::write_gzip(folder.file("empty.fa.gz"), "");
  CHECK_THAT(read_error(folder.file("empty.fa.gz")), Contains("empty.fa.gz: "));
  test::write_bgzf(folder.file("x.bam"), std::string("BAM\1\0\0\0\0\0\0\0\0", 12));
  CHECK_THAT(read_error(folder.file("x.bam")), Contains("wanted FASTA or FASTQ") && Contains("BAM"));
  CHECK_THAT(read_error(folder.write("x.sam", "@HD\tVN:1.6\n@SQ\tSN:a\tLN:9\n")), Contains("found SAM"));
  CHECK_THAT(read_error(folder.write("x.xz", std::string("\xfd"
                                                         "7zXZ\0\0\4",
                                                         8))),
             Contains("XZ"));
}

TEST_CASE("a record without bases is named and the next one still read") {
  const TempDir folder;
  FastaReader reader(folder.write("x.fa", ">a\nAC\n>b\n\n>\nGG\n>c\nTT\n>d\n"));
  SequenceRecord record;
  CHECK(reader.next(record));
  CHECK_THAT(error_of([&] { reader.next(record); }), Contains("x.fa: record 'b' (line 3) has no bases"));
  CHECK(reader.next(record));
  CHECK(record.name.empty());
  CHECK(record.bases == "GG");
  CHECK(reader.next(record));
  CHECK(record.bases == "TT");
  CHECK_THAT(error_of([&] { reader.next(record); }), Contains("record 'd' (line 9) has no bases"));
  CHECK_FALSE(reader.next(record));
}

TEST_CASE("damaged FASTQ is named") {
  const TempDir folder;
  CHECK_THAT(read_error(folder.write("a.fq", "@r\nACGT\n+\nIII\n")),
             Contains("'r' (line 1)") && Contains("wanted 4") && Contains("found 3"));
  CHECK_THAT(read_error(folder.write("b.fq", "@r\nACGT\n")), Contains("'+'") && Contains("end of the file"));
  CHECK_THAT(read_error(folder.write("c.fq", "@r\nAC\n+\nII\nx\n")), Contains("line 5") && Contains("found 'x'"));
  CHECK_THAT(read_error(folder.write("d.fq", "@r\nAC\n+\nIII\n")), Contains("found 3"));
}

TEST_CASE("a compressed file cut anywhere is an error, never a shorter sequence") {
  const TempDir folder;
  const std::string text = ">a\n" + test::wrapped(test::random_bases(3000, 5), 60);
  test::write_gzip(folder.file("x.gz"), text);
  test::write_bgzf(folder.file("x.bgz"), text, 500);
  for (const std::string name : {"x.gz", "x.bgz"}) {
    const std::string whole = test::read_bytes(folder.file(name));
    REQUIRE(all_records(folder.file(name)).size() == 1);
    for (size_t keep = 1; keep < whole.size(); ++keep) {
      const std::string file = folder.write("cut_" + name, std::string_view(whole).substr(0, keep));
      CAPTURE(name, keep, whole.size());
      CHECK_THAT(read_error(file), StartsWith(file));
    }
  }
}

TEST_CASE("the layout of a record is what its index needs") {
  const TempDir folder;
  const auto layout_of_second = [&](const std::string& text) {
    FastaReader reader(folder.write("x.fa", ">a\nAC\n" + text));
    SequenceRecord record;
    REQUIRE(reader.next(record));
    REQUIRE(reader.next(record));
    return reader.layout();
  };
  const RecordLayout layout = layout_of_second(">b\nACGT\r\nACGT\r\nAC\r\n");
  CHECK(layout.offset == 9);
  CHECK(layout.line_bases == 4);
  CHECK(layout.line_bytes == 6);
  CHECK(layout.regular);
  for (const std::string even : {"ACGT\nACGT\n", "ACGT\nACGT", "ACGT\nA\n\n\n", "ACGT"}) {
    CAPTURE(even);
    CHECK(layout_of_second(">b\n" + even).regular);
  }
  for (const std::string uneven :
       {"AC\nACGT\n", "ACGT\nAC\nACGT\n", "\nACGT\n", "ACGT\n\nACGT\n", "AC GT\n", "ACGT \n", "ACGT\nACGT\r\nACGT\n"}) {
    CAPTURE(uneven);
    CHECK_FALSE(layout_of_second(">b\n" + uneven).regular);
  }
}

TEST_CASE("a record in pieces is the record, however small the pieces") {
  const TempDir folder;
  const std::string bases = test::random_bases(1000, 1);
  const std::string fasta = folder.write("x.fa", ">one\n" + test::wrapped(bases, 60) + "\n>none\n\n>two\nACGTN\nRY\n");
  const std::string fastq = folder.write("x.fq", "@one\nACGTACGTAC\n+\nIIIIIIIIII\n@two\nGG\n+\nII\n");
  for (const size_t wanted : {size_t{1}, size_t{59}, size_t{60}, size_t{61}, size_t{5000}}) {
    FastaReader reader(fasta);
    SequenceRecord record;
    REQUIRE(reader.next_header(record));
    CHECK(record.bases.empty());
    std::string all;
    for (bool more = true; more;) {
      std::string part;
      more = reader.read_bases(part, wanted);
      CHECK((part.size() >= wanted || !more));
      CHECK(part.size() < wanted + 60);  // by lines
      all += part;
    }
    CHECK(all == bases);
    std::string none;
    CHECK_FALSE(reader.read_bases(none, wanted));
    CHECK(none.empty());
    REQUIRE(reader.next_header(record));
    CHECK_THAT(error_of([&] { reader.read_bases(none, wanted); }), Contains("'none' (line 20) has no bases"));
    REQUIRE(reader.next_header(record));
    CHECK(record.name == "two");
    CHECK_FALSE(reader.next_header(record));  // past bases that nobody read

    FastaReader reads(fastq);
    REQUIRE(reads.next_header(record));
    CHECK(reads.next_header(record));
    CHECK(record.name == "two");
    CHECK_FALSE(reads.read_bases(none, wanted));
    CHECK(none == "GG");
    CHECK_FALSE(reads.next_header(record));
  }
}
