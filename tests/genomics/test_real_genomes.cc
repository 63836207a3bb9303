// SPDX-License-Identifier: Apache-2.0
// Real files, from the folder that BLOCKSTATE_DATA names; each case says so when it has nothing to test.
#include <catch2/catch.hpp>
#include <filesystem>

#include "genomics/genomics_dataset.h"
#include "tests/genomics/genomics_files.h"
#include "tests/support/temp_dir.h"

using namespace blockstate;
using namespace blockstate::genomics;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

/// The genomes' folder, or empty with a warning.
std::string genomes() {
  const std::string data = test::real_data_folder();
  if (data.empty()) {
    WARN("skipped: BLOCKSTATE_DATA names no folder of real data");
    return {};
  }
  return data + "/genomics/";
}

FastaIndexOptions read_only() {
  return {[](const std::string& text) { FAIL_CHECK(text); }, false};
}

data::Manifest manifest_of(const std::string& file) {
  const std::string name = fs::path(file).filename().string();
  data::ManifestOptions options;
  options.need_label = true;
  if (name.find("gbfull_") == 0) {
    options.columns = {{"sequence", "seq"}};
  } else if (name.find("gene_family") == 0) {
    options.columns = {{"label", "class"}};
  } else if (name == "promoters.data") {
    options.header = {"label", "name", "sequence"};
    options.separator = ',';
  }
  return data::read_manifest(file, options);
}

}  // namespace

TEST_CASE("every manifest of DNA is read as it lies") {
  const std::string folder = genomes();
  if (folder.empty()) {
    return;
  }
  int64_t files = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!(name.ends_with(".tsv.gz") || name.ends_with(".txt.gz") || name == "promoters.data")) {
      continue;
    }
    CAPTURE(name);
    const data::Manifest manifest = manifest_of(entry.path().string());
    const auto classes = data::manifest_labels(manifest);
    const auto dataset = GenomicsDataset::from_manifest(manifest, classes, {});
    CHECK(dataset->size() == static_cast<int64_t>(manifest.rows.size()));
    CHECK(classes.size() >= 2);
    CHECK(dataset->get(dataset->size() - 1).label >= 0);
    ++files;
  }
  CHECK(files == 18);
}

TEST_CASE("every FASTA gives the same bases by region as in sequence") {
  const std::string folder = genomes();
  if (folder.empty()) {
    return;
  }
  int64_t files = 0;
  for (const std::string& part : {folder, folder + "small/"}) {
    for (const auto& entry : fs::directory_iterator(part)) {
      const std::string file = entry.path().string();
      if (!(file.ends_with(".fa.gz") || file.ends_with(".fa") || file.ends_with(".fasta"))) {
        continue;
      }
      CAPTURE(file);
      const FastaIndex index(file, read_only());
      CHECK_FALSE(index.in_memory());
      FastaReader reader(file);
      SequenceRecord record;
      int64_t number = 0;
      for (; reader.next(record); ++number) {
        REQUIRE(index.name(number) == record.name);
        REQUIRE(index.length(number) == static_cast<int64_t>(record.bases.size()));
        const int64_t begin = index.length(number) / 3;
        const int64_t end = std::min(index.length(number), begin + 5001);
        CHECK((index.fetch(number, begin, end) ==
               record.bases.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin))));
        CHECK(DnaTokenizer().encode(record.bases, {file, 0}).size() == record.bases.size());
      }
      CHECK(number == index.size());
      ++files;
    }
  }
  CHECK(files == 18);
}

TEST_CASE("regions of a bgzip chromosome are those that samtools faidx gives") {
  const std::string folder = genomes();
  if (folder.empty()) {
    return;
  }
  // samtools 1.16 faidx human_hg19_chr20_1M-9.4M.fa.gz '{20:1000001-9388608}:1234567-1234606', and with
  // --reverse-complement
  const FastaIndex index(folder + "human_hg19_chr20_1M-9.4M.fa.gz", read_only());
  CHECK(index.fetch(index.find("20:1000001-9388608"), 1234566, 1234606) == "AGCCTCCCAAGTAGCTGGGATTAGAGGCTCCTGTCACCAT");
  const test::TempDir scratch;
  const std::string bed = scratch.write("x.bed", "20:1000001-9388608\t1234566\t1234606\tx\t0\t-\n");
  GenomicsOptions options;
  options.files = read_only();
  const auto dataset = GenomicsDataset::from_regions(index.file(), bed, {"x"}, options);
  CHECK(base_letters(dataset->get(0).tokens) == "ATGGTGACAGGAGCCTCTAATCCCAGCTACTTGGGAGGCT");
}
