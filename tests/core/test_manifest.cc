// SPDX-License-Identifier: Apache-2.0
#include <zlib.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cctype>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "core/data/manifest.h"
#include "tests/support/temp_dir.h"

namespace blockstate::data {
namespace {

using Catch::Matchers::Contains;
using test::TempDir;

std::string gzipped(const std::string& text) {
  std::string out(compressBound(text.size()) + 64, '\0');
  z_stream stream{};
  REQUIRE(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

/// The Error that reading `text` gives; empty if it can be read.
std::string error_of(const std::string& text, const ManifestOptions& options = {}) {
  const TempDir folder;
  try {
    read_manifest(folder.write("m.tsv", text), options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST_CASE("manifest: paths, labels and intervals of a plain table") {
  const TempDir folder;
  const std::string file = folder.write("lists/train.tsv",
                                        "# made by hand\n\n"
                                        "path\tlabel\tstart\tend\tsplit\n"
                                        "a.wav\tdog\t0.5\t1.25\ttrain\n"
                                        "\n"
                                        "../b.wav\tcat\t\t\ttest\n"
                                        "/far/c.wav\tdog\t2\tNA\ttrain\n");
  const Manifest manifest = read_manifest(file, {});
  REQUIRE(manifest.file == file);
  REQUIRE(manifest.rows.size() == 3);
  CHECK(manifest.rows[0].line == 4);
  CHECK(manifest.rows[0].path == folder.file("lists/a.wav"));
  CHECK(manifest.rows[0].name == "a.wav:0.5-1.25");
  CHECK(manifest.rows[0].start == 0.5);
  CHECK(manifest.rows[0].end == 1.25);
  CHECK(manifest.rows[1].line == 6);
  CHECK(manifest.rows[1].path == folder.file("b.wav"));
  CHECK(manifest.rows[1].name == "../b.wav");
  CHECK_FALSE(manifest.rows[1].start.has_value());
  CHECK(manifest.rows[2].path == "/far/c.wav");
  CHECK(manifest.rows[2].name == "/far/c.wav:2-");
  CHECK_FALSE(manifest.rows[2].end.has_value());
  CHECK(manifest_labels(manifest) == std::vector<std::string>{"cat", "dog"});

  ManifestOptions only;
  only.split = "test";
  REQUIRE(read_manifest(file, only).rows.size() == 1);
  CHECK(read_manifest(file, only).rows[0].label == "cat");
}

TEST_CASE("manifest: sequences inline keep their interval, record and strand") {
  const TempDir folder;
  const std::string text =
      "name\trecord\tstrand\tstart\tend\tsequence\tpath\n"
      "one\tchr1\t-\t10\t14\tACGT\t\n"
      "\tchr2\t.\t7\t9\tGG\tignored.fa\n"
      "\tchr3\t+\t7\t9\t\tg.fa\n";
  const Manifest manifest = read_manifest(folder.write("m.tsv", text), {});
  REQUIRE(manifest.rows.size() == 3);
  CHECK(manifest.rows[0].name == "one");
  CHECK(manifest.rows[0].sequence == "ACGT");
  CHECK(manifest.rows[0].path.empty());
  CHECK(manifest.rows[0].strand == "-");
  CHECK(manifest.rows[0].start == 10.0);
  CHECK(manifest.rows[1].name == "line 3");
  CHECK(manifest.rows[1].path.empty());
  CHECK(manifest.rows[1].strand.empty());
  CHECK(manifest.rows[2].name == "g.fa:chr3:7-9");
  CHECK(manifest.rows[2].path == folder.file("g.fa"));
}

TEST_CASE("manifest: gzip, several gzip members, CRLF, a byte order mark and no last newline read the same") {
  const std::string lf = "sequence\tlabel\nACGT\t1\nGGCC\t0";
  const std::string crlf = "\xEF\xBB\xBFsequence\tlabel\r\nACGT\t1\r\nGGCC\t0\r\n";
  const TempDir folder;
  const std::vector<std::string> files = {
      folder.write("a.tsv", lf), folder.write("b.tsv", crlf), folder.write("c.tsv.gz", gzipped(lf)),
      folder.write("d.tsv", gzipped(crlf.substr(0, 30)) + gzipped(crlf.substr(30)))};
  for (const std::string& file : files) {
    CAPTURE(file);
    const Manifest manifest = read_manifest(file, {});
    REQUIRE(manifest.rows.size() == 2);
    CHECK(manifest.rows[0].sequence == "ACGT");
    CHECK(manifest.rows[1].label == "0");
    CHECK(manifest.rows[1].line == 3);
  }
}

TEST_CASE("manifest: a line longer than any buffer stays whole") {
  std::string bases;
  for (int64_t i = 0; i < 300'000; ++i) {
    bases += "ACGT"[(i * i + i / 7) % 4];
  }
  const TempDir folder;
  const std::string text = "sequence\tlabel\n" + bases + "\tlong\nA\tshort\n";
  for (const std::string& file : {folder.write("a.tsv", text), folder.write("a.gz", gzipped(text))}) {
    const Manifest manifest = read_manifest(file, {});
    REQUIRE(manifest.rows.size() == 2);
    CHECK(manifest.rows[0].sequence == bases);
    CHECK(manifest.rows[1].label == "short");
  }
}

TEST_CASE("manifest: other names, no header, commas and stray blanks") {
  ManifestOptions options;
  options.header = {"label", "name", "bases"};
  options.columns = {{"sequence", "bases"}};
  options.separator = ',';
  const TempDir folder;
  const Manifest manifest = read_manifest(folder.write("p.data", "+,S10,\t\ttacta \n-, 867 ,\tgcgc,\n"), options);
  REQUIRE(manifest.rows.size() == 2);
  CHECK(manifest.rows[0].sequence == "tacta");
  CHECK(manifest.rows[0].name == "S10");
  CHECK(manifest.rows[1].name == "867");
  CHECK(manifest.rows[1].label == "-");
  CHECK(manifest.rows[1].line == 2);
}

TEST_CASE("manifest: what is wrong with the columns is said with the columns found and the setting") {
  CHECK_THAT(error_of("file\tclass\na\tb\n"), Contains("wanted a column 'path' or 'sequence'") &&
                                                  Contains("'file', 'class'") && Contains("data.columns"));
  CHECK_THAT(error_of("path,label\na,b\n"), Contains("'path,label'") && Contains("data.separator"));
  ManifestOptions need;
  need.need_label = true;
  CHECK_THAT(error_of("path\tclass\na\tb\n", need),
             Contains("needs labels") && Contains("'path', 'class'") && Contains("data.columns = { label = "));
  CHECK_THAT(error_of("path\tlabel\na\tx\nb\t\n", need), Contains("line 3") && Contains("'label'"));
  CHECK(error_of("path\tlabel\na\tx\nb\t\n").empty());
  ManifestOptions renamed;
  renamed.columns = {{"label", "klass"}};
  CHECK_THAT(error_of("path\tclass\na\tb\n", renamed), Contains("'klass'") && Contains("'path', 'class'"));
  renamed.columns = {{"lable", "class"}};
  CHECK_THAT(error_of("path\tclass\na\tb\n", renamed), Contains("'lable' is no role"));
  CHECK_THAT(error_of("path\tpath\na\tb\n"), Contains("'path' is there twice"));
  ManifestOptions split;
  split.split = "valid";
  CHECK_THAT(error_of("path\tlabel\na\tb\n", split), Contains("'split'") && Contains("'path', 'label'"));
  CHECK_THAT(error_of("path\tsplit\na\ttrain\nb\ttest\n", split),
             Contains("no row of split 'valid'") && Contains("'test', 'train'"));
}

TEST_CASE("manifest: what is wrong with a line is said with its number") {
  CHECK_THAT(error_of("path\tlabel\na\tb\nc\n"), Contains("line 3: wanted 2 fields, found 1"));
  CHECK_THAT(error_of("path\tlabel\na\tb\tc\n"), Contains("line 2: wanted 2 fields") && Contains("'c'"));
  CHECK_THAT(error_of("path\tlabel\n\tb\n"), Contains("line 2: column 'path' is empty"));
  CHECK_THAT(error_of("path\tstart\tend\na\tone\t2\n"), Contains("line 2 column 'start'") && Contains("found 'one'"));
  CHECK_THAT(error_of("path\tstart\tend\na\t1\t2s\n"), Contains("column 'end'") && Contains("found '2s'"));
  CHECK_THAT(error_of("path\tstart\tend\na\t-1\t2\n"), Contains("found '-1'"));
  CHECK_THAT(error_of("path\tstart\tend\na\tnan\t2\n"), Contains("found 'nan'"));
  CHECK_THAT(error_of("path\tstart\tend\na\t3\t2.5\n"), Contains("line 2: end 2.5 lies before start 3"));
  CHECK_THAT(error_of("path\tstrand\na\tx\n"), Contains("column 'strand'") && Contains("found 'x'"));
  CHECK_THAT(error_of(std::string("path\tlabel\na\0b\tx\n", 16)), Contains("line 2") && Contains("binary"));
}

TEST_CASE("manifest: files that are none") {
  const TempDir folder;
  CHECK_THROWS_WITH(read_manifest(folder.file("none.tsv"), {}), Contains("none.tsv: no such file"));
  CHECK_THROWS_WITH(read_manifest(folder.path().string(), {}), Contains("found a directory"));
  CHECK_THAT(error_of(""), Contains("the file is empty"));
  CHECK_THAT(error_of("\n# only a remark\n\n"), Contains("the file is empty"));
  CHECK_THAT(error_of("path\tlabel\n"), Contains("found none after the header"));
}

TEST_CASE("manifest: a gzip stream cut anywhere is an error, never fewer rows") {
  std::string text = "sequence\tlabel\n";
  for (int i = 0; i < 200; ++i) {
    text += std::string(static_cast<size_t>(20 + i % 7), "ACGT"[i % 4]) + "\t" + std::to_string(i) + "\n";
  }
  const std::string whole = gzipped(text);
  REQUIRE(error_of(whole).empty());
  for (size_t size = 1; size < whole.size(); size += size < 40 || size + 40 > whole.size() ? 1 : 17) {
    CAPTURE(size);
    CHECK_FALSE(error_of(whole.substr(0, size)).empty());
  }
  CHECK_THAT(error_of(whole.substr(0, whole.size() / 2)), Contains("cut short inside its gzip stream"));
  std::string damaged = whole;
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 0x55);
  CHECK_FALSE(error_of(damaged).empty());
}

struct RealTable {
  const char* file;
  ManifestOptions options;
  size_t rows;
  size_t classes;
};

TEST_CASE("manifest: every table of the real data is read as it lies") {
  const std::string data = test::real_data_folder();
  if (data.empty()) {
    WARN("skipped: BLOCKSTATE_DATA is unset");
    return;
  }
  ManifestOptions by_id;
  by_id.columns = {{"name", "id"}, {"record", "region"}};
  ManifestOptions histone;
  histone.columns = {{"name", "id"}};
  ManifestOptions full;
  full.columns = {{"sequence", "seq"}};
  ManifestOptions family;
  family.columns = {{"label", "class"}};
  ManifestOptions promoters;
  promoters.header = {"label", "name", "sequence"};
  promoters.separator = ',';
  const std::vector<RealTable> tables = {
      {"gb_drosophila_enhancers_stark.train.tsv.gz", by_id, 1887, 2},
      {"gb_human_enhancers_cohn.train.tsv.gz", by_id, 1161, 2},
      {"gb_human_enhancers_ensembl.train.tsv.gz", by_id, 7004, 2},
      {"gb_human_ensembl_regulatory.train.tsv.gz", by_id, 11653, 3},
      {"gb_human_nontata_promoters.train.tsv.gz", by_id, 848, 2},
      {"gb_human_ocr_ensembl.train.tsv.gz", by_id, 7559, 2},
      {"gbfull_enhancers_cohn.70pc.tsv.gz", full, 4882, 2},
      {"gbfull_promoters_nontata.70pc.tsv.gz", full, 6386, 2},
      {"gene_family_chimp.txt.gz", family, 1682, 7},
      {"histone_H3.tsv.gz", histone, 1225, 2},
      {"histone_H3K14ac.tsv.gz", histone, 2621, 2},
      {"histone_H3K36me3.tsv.gz", histone, 2781, 2},
      {"histone_H3K4me1.tsv.gz", histone, 2501, 2},
      {"histone_H3K4me2.tsv.gz", histone, 2438, 2},
      {"histone_H3K79me3.tsv.gz", histone, 2301, 2},
      {"histone_H4ac.tsv.gz", histone, 2719, 2},
      {"uci_splice.80pc.tsv.gz", {}, 2545, 3},
      {"promoters.data", promoters, 106, 2},
  };
  for (RealTable table : tables) {
    CAPTURE(table.file);
    table.options.need_label = true;
    const Manifest manifest = read_manifest(data + "/genomics/" + table.file, table.options);
    CHECK(manifest.rows.size() == table.rows);
    CHECK(manifest_labels(manifest).size() == table.classes);
    for (const ManifestRow& row : manifest.rows) {
      const bool letters =
          std::all_of(row.sequence.begin(), row.sequence.end(), [](unsigned char c) { return std::isalpha(c); });
      if (!letters) {
        FAIL("line " << row.line << " holds more than letters");
      }
    }
  }
}

}  // namespace
}  // namespace blockstate::data
