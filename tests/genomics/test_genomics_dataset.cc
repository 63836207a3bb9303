// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <thread>

#include "genomics/genomics_dataset.h"
#include "tests/genomics/genomics_files.h"
#include "tests/support/temp_dir.h"

using namespace blockstate;
using namespace blockstate::genomics;
using blockstate::test::error_of;
using blockstate::test::TempDir;
using Catch::Matchers::Contains;

namespace {

std::unique_ptr<GenomicsDataset> manifest_dataset(const std::string& file, const GenomicsOptions& options,
                                                  std::vector<std::string> classes = {}) {
  const data::Manifest manifest = data::read_manifest(file, {});
  return GenomicsDataset::from_manifest(manifest, classes.empty() ? data::manifest_labels(manifest) : classes, options);
}

/// "name label letters" of each example.
std::vector<std::string> shown(const GenomicsDataset& dataset) {
  std::vector<std::string> out;
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const data::Example example = dataset.get(i);
    CHECK(example.length() == dataset.length(i));
    out.push_back(example.name + " " + std::to_string(example.label) + " " + base_letters(example.tokens));
  }
  return out;
}

using Shown = std::vector<std::string>;

}  // namespace

TEST_CASE("inline sequences are read as they stand unless a slice is asked for") {
  const TempDir folder;
  const std::string file = folder.write("x.tsv",
                                        "name\tlabel\tstart\tend\tstrand\tsequence\n"
                                        "one\tpos\t1\t4\t-\tAACGTN\n"
                                        "two\tneg\t2\t4\t+\t\tacgu \n");
  const std::string two = folder.write("y.tsv",
                                       "name\tlabel\tstart\tend\tstrand\tsequence\n"
                                       "one\tpos\t1\t4\t-\tAACGTN\n"
                                       "two\tneg\t2\t4\t+\tacgu\n");
  CHECK_THAT(error_of([&] { manifest_dataset(file, {}); }), Contains("x.tsv"));
  CHECK(shown(*manifest_dataset(two, {})) == Shown{"one 1 AACGTN", "two 0 ACGT"});
  GenomicsOptions options;
  options.slice = true;
  CHECK(shown(*manifest_dataset(two, options)) == Shown{"one 1 CGT", "two 0 GT"});
  options.slice = false;
  options.lower_case = LowerCase::kMask;
  CHECK(shown(*manifest_dataset(two, options)) == Shown{"one 1 AACGTN", "two 0 NNNN"});
}

TEST_CASE("a path is its records, one record, or a stretch of one on either strand") {
  const TempDir folder;
  folder.write("fa/many.fa", ">a\nAACCG\nGT\n>b\nTTTA\n");
  folder.write("fa/one.fa", ">c\nACGTT\n");
  const std::string file = folder.write("x.tsv",
                                        "path\tlabel\trecord\tstart\tend\tstrand\n"
                                        "fa/many.fa\tx\t\t\t\t\n"
                                        "fa/many.fa\ty\tb\t\t\t-\n"
                                        "fa/many.fa\tx\ta\t1\t5\t\n"
                                        "fa/one.fa\ty\t\t2\t\t-\n"
                                        "fa/one.fa\ty\t\t\t\t\n");
  CHECK(shown(*manifest_dataset(file, {})) == Shown{"fa/many.fa:a 0 AACCGGT", "fa/many.fa:b 0 TTTA",
                                                    "fa/many.fa:b 1 TAAA", "fa/many.fa:a:1-5 0 ACCG",
                                                    "fa/one.fa:2- 1 AAC", "fa/one.fa 1 ACGTT"});
}

TEST_CASE("long sequences are cut into windows") {
  const TempDir folder;
  const std::string file = folder.write("x.fa", ">a\nAACCG\nGT\n>b\nTTTA\n>c\nG\n");
  GenomicsOptions options;
  CHECK(shown(*GenomicsDataset::from_fasta(file, options)) == Shown{"a -1 AACCGGT", "b -1 TTTA", "c -1 G"});
  options.length = 4;
  CHECK(shown(*GenomicsDataset::from_fasta(file, options)) ==
        Shown{"a:1-4 -1 AACC", "a:5-7 -1 GGT", "b -1 TTTA", "c -1 G"});
  options.hop = 2;
  options.min_length = 2;
  CHECK(shown(*GenomicsDataset::from_fasta(file, options)) ==
        Shown{"a:1-4 -1 AACC", "a:3-6 -1 CCGG", "a:5-7 -1 GGT", "b -1 TTTA"});
  options.first_window_only = true;
  CHECK(shown(*GenomicsDataset::from_fasta(file, options)) == Shown{"a:1-4 -1 AACC", "b -1 TTTA"});
  options.min_length = 1;
  options.kmer = 2;
  const auto kmers = GenomicsDataset::from_fasta(file, options);
  CHECK(kmers->size() == 2);
  CHECK(kmers->vocabulary() == 17);
  CHECK(kmers->get(0).tokens == std::vector<int64_t>{0, 5});
  CHECK(kmers->length(0) == 2);
  options = {};
  options.length = 3;
  options.slice = true;
  const std::string manifest = folder.write("y.tsv", "name\tsequence\tstart\tend\tstrand\nr\tGAACCTG\t1\t6\t-\n");
  CHECK(shown(*manifest_dataset(manifest, options)) == Shown{"r:4-6(-) -1 AGG", "r:2-3(-) -1 TT"});
}

TEST_CASE("regions of a FASTA carry labels and strands") {
  const TempDir folder;
  const std::string fasta = folder.write("x.fa", ">a\nAACCG\nGT\n>b\nTTTA\n");
  const std::string bed = folder.write("x.bed", "a\t1\t5\tenhancer\na\t1\t5\tother\t0\t-\nb\t0\t4\n");
  CHECK(shown(*GenomicsDataset::from_regions(fasta, bed, region_labels(read_bed(bed)), {})) ==
        Shown{"a:2-5 0 ACCG", "a:2-5(-) 1 CGGT", "b:1-4 -1 TTTA"});
  GenomicsOptions options;
  options.length = 3;
  CHECK(shown(*GenomicsDataset::from_regions(fasta, bed, {}, options)) ==
        Shown{"a:2-4 -1 ACC", "a:5-5 -1 G", "a:3-5(-) -1 CGG", "a:2-2(-) -1 T", "b:1-3 -1 TTT", "b:4-4 -1 A"});
}

TEST_CASE("what a manifest or BED asks in vain is named with its line") {
  const TempDir folder;
  folder.write("x.fa", ">chr1\nACGTAC\n>chr2\nGG\n");
  const auto manifest_error = [&](const std::string& text, const GenomicsOptions& options = {}) {
    const std::string file = folder.write("x.tsv", text);
    return error_of([&] { manifest_dataset(file, options, {"no", "yes"}); });
  };
  const std::string head = "path\tlabel\trecord\tstart\tend\n";
  CHECK_THAT(manifest_error(head + "x.fa\tyes\t\t\t\nx.fa\tmaybe\t\t\t\n"),
             Contains("x.tsv line 3: unknown label 'maybe'; the classes are 'no', 'yes'"));
  CHECK_THAT(manifest_error(head + "x.fa\tyes\t1\t\t\n"), Contains("line 2") && Contains("did you mean 'chr1'?"));
  CHECK_THAT(manifest_error(head + "x.fa\tyes\tchr1\t2\t7\n"),
             Contains("line 2") && Contains("the 6 bases of record 'chr1'") && Contains("end 7"));
  CHECK_THAT(manifest_error(head + "x.fa\tyes\tchr1\t2\t2\n"), Contains("start 2 and end 2"));
  CHECK_THAT(manifest_error(head + "x.fa\tyes\tchr1\t1.5\t3\n"), Contains("whole number") && Contains("1.5"));
  CHECK_THAT(manifest_error(head + "x.fa\tyes\t\t1\t3\n"), Contains("need a record's name") && Contains("2 records"));
  CHECK_THAT(manifest_error(head + "none.fa\tyes\t\t\t\n"), Contains("none.fa: no such file"));
  CHECK_THAT(manifest_error("sequence\tlabel\nACGT\tyes\nAC4T\tno\n"),
             Contains("x.tsv line 3, position 3") && Contains("'4'"));
  GenomicsOptions options;
  options.slice = true;
  CHECK_THAT(manifest_error("sequence\tstart\tend\nACGT\t1\t5\n", options), Contains("4 bases of its sequence"));
  options = {};
  options.min_length = 5;
  CHECK_THAT(manifest_error("sequence\nACGT\n", options), Contains("x.tsv") && Contains("5 bases"));

  const auto bed_error = [&](const std::string& text) {
    const std::string bed = folder.write("x.bed", text);
    return error_of([&] { GenomicsDataset::from_regions(folder.file("x.fa"), bed, {"no", "yes"}, {}); });
  };
  CHECK_THAT(bed_error("chr1\t0\t4\tyes\nchr1\t0\t7\tyes\n"), Contains("x.bed, line 2") && Contains("6 bases"));
  CHECK_THAT(bed_error("chr3\t0\t4\tyes\n"), Contains("x.bed, line 1") && Contains("it has 'chr1', 'chr2'"));
  CHECK_THAT(bed_error("chr1\t0\t4\tmaybe\n"), Contains("unknown label 'maybe'"));
}

TEST_CASE("a letter that is no base is named when its window is read") {
  const TempDir folder;
  const std::string file = folder.write("x.fa", ">p\nACGT\nAC7T\n");
  GenomicsOptions options;
  options.length = 3;
  const auto dataset = GenomicsDataset::from_fasta(file, options);
  CHECK(base_letters(dataset->get(0).tokens) == "ACG");
  CHECK_THAT(error_of([&] { dataset->get(2); }), Contains("x.fa: record 'p', position 7:") && Contains("found '7'"));
  CHECK_THAT(error_of([&] { dataset->get(3); }), Contains("below 3, found 3"));
}

TEST_CASE("examples are the same from any thread and from any packing") {
  const TempDir folder;
  std::string text;
  for (int i = 0; i < 5; ++i) {
    text += ">r" + std::to_string(i) + "\n" +
            test::wrapped(test::random_bases(2000 + 37 * i, 20 + static_cast<uint64_t>(i)), 60);
  }
  const std::string plain = folder.write("x.fa", text);
  test::write_gzip(folder.file("x.gzip.fa.gz"), text);
  test::write_bgzf(folder.file("x.bgzf.fa.gz"), text);
  GenomicsOptions options;
  options.length = 101;
  const auto expected = shown(*GenomicsDataset::from_fasta(plain, options));
  CHECK(expected.size() > 99);
  for (const std::string name : {"x.gzip.fa.gz", "x.bgzf.fa.gz"}) {
    const auto dataset = GenomicsDataset::from_fasta(folder.file(name), options);
    std::vector<int> wrong(4, 0);
    std::vector<std::thread> threads;
    for (size_t t = 0; t < wrong.size(); ++t) {
      threads.emplace_back([&, t] {
        for (int64_t i = 0; i < dataset->size(); ++i) {
          const int64_t at = (i * 17 + static_cast<int64_t>(t) * 31) % dataset->size();
          const data::Example example = dataset->get(at);
          wrong[t] += example.name + " -1 " + base_letters(example.tokens) != expected[static_cast<size_t>(at)];
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    CHECK(wrong == std::vector<int>(4, 0));
  }
}
