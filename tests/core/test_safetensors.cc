// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <numbers>
#include <string>

#include "core/base/check.h"
#include "core/base/random.h"
#include "core/train/safetensors.h"
#include "tests/support/file_limit.h"
#include "tests/support/temp_dir.h"

namespace blockstate::train {
namespace {

using test::TempDir;

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string open_error(const std::string& path) {
  return error_of([&] { SafetensorsFile file(path); });
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// A file of this header and so many bytes of data.
std::string assemble(const std::string& header, size_t data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data, '\1');
}

NamedTensors some_tensors() {
  NamedTensors tensors;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  tensors["layers.0.weight"] = Tensor::from<float>({2, 3}, {1, -2, 3.5, nan, -0.0f, 1e-42f});
  tensors["double"] = Tensor::from<double>({1}, {0.1});
  tensors["long"] = Tensor::from<int64_t>({2}, {INT64_MIN, 7});
  tensors["int"] = Tensor::from<int32_t>({1, 1}, {-5});
  tensors["byte \"ü\"\n"] = Tensor::from<uint8_t>({3}, {0, 255, 3});
  tensors["scalar"] = Tensor::from<float>({}, {4});
  tensors["empty"] = Tensor::zeros({3, 0}, DType::kFloat32);
  Tensor half = Tensor::empty({2}, DType::kBFloat16);
  std::memcpy(half.bytes(), "\x80\x3f\x00\xc0", 4);
  tensors["half"] = half;
  return tensors;
}

TEST_CASE("safetensors: every type comes back bit by bit", "[cpu]") {
  const TempDir folder;
  const std::string path = folder.file("a.safetensors");
  const NamedTensors tensors = some_tensors();
  write_safetensors(path, tensors, {{"format", "blockstate"}, {"note", "ä\n"}});
  const SafetensorsFile file(path);
  CHECK(file.metadata() == TextMap{{"format", "blockstate"}, {"note", "ä\n"}});
  const NamedTensors read = file.read_all();
  REQUIRE(read.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    REQUIRE(read.count(name) == 1);
    const Tensor& found = read.at(name);
    CHECK(found.shape() == tensor.shape());
    REQUIRE(found.dtype() == tensor.dtype());
    const int64_t width = dtype_size(tensor.dtype());
    CHECK(std::memcmp(found.bytes(), tensor.bytes(), static_cast<size_t>(tensor.elements() * width)) == 0);
    CHECK(file.entries().at(name).begin % width == 0);
  }
  write_safetensors(folder.file("b.safetensors"), tensors, {{"format", "blockstate"}, {"note", "ä\n"}});
  CHECK(contents(folder.file("b.safetensors")) == contents(path));
}

TEST_CASE("safetensors: a strided tensor is written packed, no tensors make a file", "[cpu]") {
  const TempDir folder;
  const Tensor whole = Tensor::from<float>({2, 3}, {1, 2, 3, 4, 5, 6});
  write_safetensors(folder.file("a"), {{"part", whole.slice(1, 1, 3)}});
  const Tensor part = SafetensorsFile(folder.file("a")).read("part");
  REQUIRE(part.shape() == Shape{2, 2});
  CHECK(std::vector<float>(part.data<float>(), part.data<float>() + 4) == std::vector<float>{2, 3, 5, 6});
  write_safetensors(folder.file("none"), {});
  CHECK(SafetensorsFile(folder.file("none")).entries().empty());
}

TEST_CASE("safetensors: a file by the reference program is read", "[cpu]") {
  const SafetensorsFile file(std::string(BLOCKSTATE_TEST_DATA) + "/golden/adamw.safetensors");
  const Tensor rate = file.read("learning_rate");
  REQUIRE(rate.shape() == Shape{21});
  CHECK(rate.data<double>()[1] == 0.0025);
  CHECK(rate.data<double>()[12] == Approx(0.005).epsilon(1e-12));
  CHECK(file.read("decayed.grad.5").shape() == Shape{7});
}

TEST_CASE("safetensors: a file cut short anywhere is refused", "[cpu]") {
  const TempDir folder;
  const std::string path = folder.file("whole");
  write_safetensors(path, some_tensors(), {{"a", "b"}});
  const std::string whole = contents(path);
  for (size_t length = 0; length < whole.size(); ++length) {
    std::filesystem::remove(folder.file("cut"));  // writing over a file makes some file systems wait for the disk
    const std::string cut = folder.write("cut", whole.substr(0, length));
    const std::string error = open_error(cut);
    INFO(length << " bytes: " << error);
    CHECK(error.rfind(cut + ": is " + std::to_string(length) + " bytes long, ", 0) == 0);
  }
  CHECK_THAT(open_error(folder.write("long", whole + "x")), Catch::Contains("bytes long, its header wants "));
}

TEST_CASE("safetensors: damage to a header is named or harmless", "[cpu]") {
  const TempDir folder;
  const std::string path = folder.file("whole");
  write_safetensors(path, some_tensors(), {{"a", "b"}});
  const std::string whole = contents(path);
  uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  RandomStream random(11);
  int64_t refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = whole;
    damaged[random.below(8 + header)] = static_cast<char>(random.below(256));
    std::filesystem::remove(folder.file("damaged"));
    const std::string file = folder.write("damaged", damaged);
    try {
      SafetensorsFile(file).read_all();
    } catch (const Error& error) {
      ++refused;
      CHECK(std::string(error.what()).rfind(file + ": ", 0) == 0);
    }
  }
  CHECK(refused > 1000);
}

TEST_CASE("safetensors: unsound headers", "[cpu]") {
  const TempDir folder;
  const auto error = [&](const std::string& header, size_t data = 0) {
    const std::string path = folder.write("f", assemble(header, data));
    const std::string text = open_error(path);
    REQUIRE(text.rfind(path + ": ", 0) == 0);
    return text.substr(path.size() + 2);
  };
  const auto tensor = [](const std::string& type, const std::string& shape, const std::string& offsets) {
    return R"("x":{"dtype":")" + type + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
  };
  CHECK(open_error(folder.file("absent")) == folder.file("absent") + ": cannot read: No such file or directory");
  CHECK(open_error(folder.path().string()) ==
        folder.path().string() + ": is no regular file, wanted a safetensors file");
  CHECK_THAT(error("[1]"), Catch::Equals("its header is an array, wanted a table"));
  CHECK_THAT(error("{"), Catch::StartsWith("not valid JSON at byte "));
  CHECK(error(R"({"x":3})") == "the tensor \"x\": is described by the integer 3, wanted a table");
  CHECK(error(R"({"x":{"shape":[1],"data_offsets":[0,4]}})", 4) == "the tensor \"x\": has no dtype");
  CHECK(error("{" + tensor("F31", "[1]", "[0,4]") + "}", 4) == "the tensor \"x\": unknown dtype \"F31\"");
  CHECK(error("{" + tensor("F32", "1", "[0,4]") + "}", 4) ==
        "the tensor \"x\": its shape is the integer 1, wanted an array");
  CHECK(error("{" + tensor("F32", "[-1]", "[0,4]") + "}", 4) ==
        "the tensor \"x\": its shape holds the integer -1, wanted integers of at least 0");
  CHECK(error("{" + tensor("F32", "[1.5]", "[0,4]") + "}", 4) ==
        "the tensor \"x\": its shape holds the number 1.5, wanted integers of at least 0");
  CHECK(error("{" + tensor("F32", "[2]", "[0,4]") + "}", 4) ==
        "the tensor \"x\": F32 of shape (2) takes 8 bytes, its data_offsets give 4");
  CHECK(error("{" + tensor("F32", "[1]", "[4,0]") + "}", 4) ==
        "the tensor \"x\": its data_offsets must be two integers, begin and end");
  CHECK(error("{" + tensor("F32", "[4294967296,4294967296]", "[0,0]") + "}") ==
        "the tensor \"x\": its shape (4294967296, 4294967296) does not fit in memory");
  CHECK(error("{" + tensor("U8", "[1]", "[9223372036854775806,9223372036854775807]") + "}") ==
        "the tensor \"x\": its data_offsets do not fit in 64 bits");
  CHECK_THAT(error("{" + tensor("F32", "[1]", "[4,8]") + "}", 4), Catch::EndsWith("; the file is cut short"));
  CHECK(error("{" + tensor("F32", "[1]", "[4,8]") + "}", 8) == "4 bytes before the tensor \"x\" belong to no tensor");
  CHECK(error("{" + tensor("F32", "[1]", "[0,4]") + R"(,"y":{"dtype":"U8","shape":[3],"data_offsets":[2,5]}})", 5) ==
        "the tensors \"x\" and \"y\" overlap");
  CHECK(error("{" + tensor("F32", "[1]", "[0,4]") + "," + tensor("F32", "[1]", "[0,4]") + "}", 4) ==
        "the key \"x\" is given twice");
  CHECK(error(R"({"__metadata__":{"a":1}})") == "the metadata \"a\" is the integer 1, wanted a string");
  CHECK(error(R"({"__metadata__":[]})") == "__metadata__ is an array, wanted a table of strings");
  const std::string huge = folder.write("huge", std::string(8, '\xff') + "{}");
  CHECK_THAT(open_error(huge), Catch::Contains("its header would be 18446744073709551615 bytes long"));
}

TEST_CASE("safetensors: what cannot be read is named when asked for", "[cpu]") {
  const TempDir folder;
  const std::string path =
      folder.write("f", assemble(R"({"layers.0.weight":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})", 4));
  const SafetensorsFile file(path);
  CHECK(file.entries().at("layers.0.weight").dtype == "F16");
  CHECK(error_of([&] { file.read("layers.0.weight"); }) ==
        path + ": the tensor \"layers.0.weight\" is of type F16, wanted F64, F32, BF16, I64, I32 or U8");
  CHECK(error_of([&] { file.read("layers.0.wieght"); }) ==
        path + ": has no tensor \"layers.0.wieght\"; did you mean \"layers.0.weight\"?");
  write_safetensors(folder.file("g"), {{"x", Tensor::zeros({100}, DType::kFloat32)}});
  const SafetensorsFile open(folder.file("g"));
  std::filesystem::resize_file(folder.file("g"), 200);
  CHECK(error_of([&] { open.read("x"); }) == folder.file("g") + ": became shorter while the tensor \"x\" was read");
}

TEST_CASE("safetensors: a full disk is an error that names the file", "[cpu]") {
  const TempDir folder;
  const Tensor big = Tensor::zeros({100000}, DType::kFloat32);
  const std::string path = folder.file("big");
  {
    const test::FileLimit limit(64 * 1024);
    CHECK(error_of([&] { write_safetensors(path, {{"x", big}}); }) == path + ": cannot write: File too large");
  }
  write_safetensors(path, {{"x", big}});
  CHECK(SafetensorsFile(path).read("x").elements() == 100000);
  CHECK(error_of([&] { write_safetensors(folder.file("no/such"), {}); }) ==
        folder.file("no/such") + ": cannot write: No such file or directory");
  // A device that is always full: the message is the one of a full disk.
  if (std::filesystem::exists("/dev/full")) {
    CHECK(error_of([&] {
            write_safetensors("/dev/full", {{"x", big}});
          }) == "/dev/full: cannot write: No space left on device");
  }
}

}  // namespace
}  // namespace blockstate::train
