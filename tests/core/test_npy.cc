// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>

#include "core/base/check.h"
#include "core/data/npy.h"
#include "core/data/npy_rows.h"
#include "tests/support/temp_dir.h"

namespace blockstate::data {
namespace {

using Catch::Matchers::Contains;

std::string bytes_of(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace

TEST_CASE("a .npy file that grows is whole after every append", "[npy]") {
  const test::TempDir folder;
  const std::string file = folder.write("ids.npy", "what was there");
  NpyRows rows(file, DType::kInt64, 0);
  std::vector<int64_t> all;
  for (const int64_t count : {1, 7, 1000, 3}) {
    std::vector<int64_t> more;
    for (int64_t i = 0; i < count; ++i) {
      more.push_back(static_cast<int64_t>(all.size()) * 11 + i);
    }
    all.insert(all.end(), more.begin(), more.end());
    rows.append(more.data(), count);
    const Tensor read = read_npy_integers(file);
    CHECK(read.shape() == Shape{static_cast<int64_t>(all.size())});
    CHECK(std::vector<int64_t>(read.data<int64_t>(), read.data<int64_t>() + read.elements()) == all);
  }
  rows.finish();
  // Byte for byte what is written at once.
  write_npy(folder.file("once.npy"), Tensor::from({static_cast<int64_t>(all.size())}, all));
  const std::string grown = bytes_of(file), once = bytes_of(folder.file("once.npy"));
  CHECK(grown.substr(grown.size() - 8 * all.size()) == once.substr(once.size() - 8 * all.size()));
}

TEST_CASE("rows that are dropped are gone from the file", "[npy]") {
  const test::TempDir folder;
  const std::string file = folder.file("rows.npy");
  NpyRows rows(file, DType::kFloat32, 3);
  const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  rows.append(values.data(), 3);
  rows.keep(5);  // more than there are
  CHECK(rows.rows() == 3);
  rows.keep(1);
  CHECK(bytes_of(file).size() == 128 + 12);
  rows.append(values.data() + 6, 1);
  rows.finish();
  const std::string bytes = bytes_of(file);
  REQUIRE(bytes.size() == 128 + 24);
  CHECK_THAT(bytes.substr(0, 128), Contains("'shape': (2,3,)") && Contains("'<f4'"));
  std::vector<float> found(6);
  std::memcpy(found.data(), bytes.data() + 128, 24);
  CHECK(found == std::vector<float>{1, 2, 3, 7, 8, 9});
}

TEST_CASE("a .npy file holds one type, in a place that can be written", "[npy]") {
  const test::TempDir folder;
  NpyRows rows(folder.file("rows.npy"), DType::kFloat32, 1);
  const int64_t id = 3;
  CHECK_THROWS_WITH(rows.append(&id, 1), Contains("rows.npy") && Contains("float32") && Contains("int64"));
  CHECK_THROWS_WITH(NpyRows("not/there.npy", DType::kInt64, 0), Contains("not/there.npy: cannot write"));
  CHECK_THROWS_WITH(NpyRows(folder.file("x.npy"), DType::kFloat64, 0), Contains("float64 is not written"));
}

}  // namespace blockstate::data
