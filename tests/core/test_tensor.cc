// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/tensor/tensor.h"
#include "tests/support/compare.h"

namespace blockstate {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int64_t>;

template <class T>
Tensor counting(const Shape& shape) {
  std::vector<T> values(static_cast<size_t>(element_count(shape)));
  std::iota(values.begin(), values.end(), T(0));
  return Tensor::from(shape, values);
}

template <class T>
std::vector<T> values_of(const Tensor& tensor) {
  const Tensor packed = tensor.packed();
  return {packed.data<T>(), packed.data<T>() + packed.elements()};
}

}  // namespace

TEST_CASE("a new tensor is row-major, without gaps and aligned", "[tensor]") {
  const Tensor tensor = Tensor::empty({2, 3, 4}, DType::kFloat32);
  CHECK(tensor.strides() == Shape{12, 4, 1});
  CHECK(tensor.contiguous());
  CHECK(tensor.elements() == 24);
  CHECK(reinterpret_cast<uintptr_t>(tensor.data<float>()) % 64 == 0);
  CHECK(values_of<double>(Tensor::zeros({2, 2}, DType::kFloat64)) == std::vector<double>(4, 0.0));
  CHECK(tensor.size(-1) == 4);
  CHECK(tensor.size(0) == 2);
  CHECK_THROWS_WITH(tensor.size(3), Contains("(2, 3, 4)"));
  CHECK_THROWS_WITH(tensor.size(-4), Contains("(2, 3, 4)"));
  CHECK_THROWS_WITH(Tensor::empty({2, -1}, DType::kFloat32), Contains("(2, -1)"));
  CHECK_THROWS_WITH(Tensor::from<float>({2, 2}, {1, 2, 3}), Contains("(2, 2)") && Contains("3 values"));
  CHECK(Tensor::empty({}, DType::kFloat32).elements() == 1);
  CHECK(Tensor::empty({3, 0, 2}, DType::kInt64).elements() == 0);
}

TEST_CASE("a slice shares elements and keeps strides", "[tensor]") {
  Tensor tensor = counting<int64_t>({2, 3, 4});
  CHECK(tensor.unique());
  const Tensor middle = tensor.slice(1, 1, 3);
  CHECK(middle.shape() == Shape{2, 2, 4});
  CHECK(middle.strides() == Shape{12, 4, 1});
  CHECK_FALSE(middle.contiguous());
  CHECK_FALSE(tensor.unique());
  CHECK(values_of<int64_t>(middle) == Ids{4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23});

  const Tensor corner = middle.slice(-1, 1, 3).slice(0, 1, 2);
  CHECK(values_of<int64_t>(corner) == Ids{17, 18, 21, 22});
  *corner.data<int64_t>() = -5;
  CHECK(tensor.data<int64_t>()[17] == -5);

  const Tensor first = tensor.slice(0, 0, 1);
  CHECK(first.contiguous());  // its outer stride is never used
  CHECK(tensor.slice(2, 2, 2).elements() == 0);
  CHECK(values_of<int64_t>(tensor.slice(2, 2, 2)).empty());
  CHECK_THROWS_WITH(tensor.slice(1, 2, 4), Contains("[2, 4)") && Contains("(2, 3, 4)"));
  CHECK_THROWS_AS(tensor.slice(1, 2, 1), Error);
  CHECK_THROWS_AS(tensor.slice(1, -1, 1), Error);
  CHECK_THROWS_AS(tensor.slice(3, 0, 1), Error);
}

TEST_CASE("reshape shares where strides allow and copies elsewhere", "[tensor]") {
  const Tensor tensor = counting<float>({2, 3, 4});
  const Tensor flat = tensor.reshape({-1, 6});
  CHECK(flat.shape() == Shape{4, 6});
  CHECK(flat.data<float>() == tensor.data<float>());
  const Tensor second = tensor.slice(0, 1, 2).reshape({12});
  CHECK(second.data<float>() == tensor.data<float>() + 12);

  const Tensor columns = tensor.slice(2, 1, 3).reshape({12});
  CHECK(columns.contiguous());
  CHECK(columns.unique());
  CHECK(values_of<float>(columns) == std::vector<float>{1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22});

  CHECK(Tensor::empty({0, 5}, DType::kFloat32).reshape({-1, 5}).shape() == Shape{0, 5});
  CHECK_THROWS_WITH(tensor.reshape({5, 5}), Contains("(2, 3, 4)") && Contains("(5, 5)"));
  CHECK_THROWS_AS(tensor.reshape({-1, 5}), Error);
  CHECK_THROWS_AS(tensor.reshape({-1, -1}), Error);
  CHECK_THROWS_AS(tensor.reshape({-1, 0}), Error);
}

TEST_CASE("copies between every pair of layouts", "[tensor]") {
  const Tensor source = counting<double>({3, 4, 5});
  const auto layout = [](const Tensor& wide, int kind) {
    return kind == 0   ? wide.slice(0, 0, 2).slice(1, 0, 2).slice(2, 0, 3).clone()
           : kind == 1 ? wide.slice(0, 1, 3).slice(1, 2, 4).slice(2, 1, 4)
                       : wide.slice(0, 0, 2).slice(1, 1, 3).slice(2, 2, 5);
  };
  for (int from = 0; from < 3; ++from) {
    for (int to = 0; to < 3; ++to) {
      const Tensor room = Tensor::zeros({3, 4, 5}, DType::kFloat64);
      Tensor target = layout(room, to);
      const Tensor read = layout(source, from);
      target.copy_from(read);
      CAPTURE(from, to);
      CHECK(values_of<double>(target) == values_of<double>(read));
      const std::vector<double> all = values_of<double>(room);
      const double wanted = std::accumulate(all.begin(), all.end(), 0.0);
      const std::vector<double> copied = values_of<double>(read);
      // Nothing is written beside the target.
      CHECK(wanted == (to == 0 ? 0.0 : std::accumulate(copied.begin(), copied.end(), 0.0)));
    }
  }
  Tensor other = Tensor::empty({3, 4}, DType::kFloat64);
  CHECK_THROWS_WITH(other.copy_from(source), Contains("(3, 4, 5)") && Contains("(3, 4)"));
  Tensor floats = Tensor::empty({3, 4, 5}, DType::kFloat32);
  CHECK_THROWS_WITH(floats.copy_from(source), Contains("float64") && Contains("float32"));
}

TEST_CASE("clone and packed", "[tensor]") {
  const Tensor tensor = counting<float>({4, 3});
  CHECK(tensor.packed().data<float>() == tensor.data<float>());
  const Tensor copy = tensor.clone();
  CHECK(copy.data<float>() != tensor.data<float>());
  *copy.data<float>() = 9;
  CHECK(*tensor.data<float>() == 0);
  const Tensor narrow = tensor.slice(1, 2, 3);
  CHECK(values_of<float>(narrow.packed()) == std::vector<float>{2, 5, 8, 11});
}

TEST_CASE("reshape sees pieces of rows as heads without moving them", "[tensor]") {
  const Tensor all = counting<double>({2, 3, 8});
  const Tensor part = all.slice(2, 2, 6);  // what one piece of a product of several looks like
  const Tensor heads = part.reshape({2, 3, 2, 2});
  CHECK(heads.strides() == std::vector<int64_t>{24, 8, 2, 1});
  CHECK(heads.bytes() == part.bytes());
  CHECK(values_of<double>(heads.packed()) == values_of<double>(part.packed()));
  CHECK(part.reshape({6, 1, 4}).bytes() == part.bytes());
  CHECK(part.reshape({6, 1, 4}).strides().front() == 8);
  const Tensor moved = part.reshape({2, 12});
  CHECK(moved.bytes() != part.bytes());
  CHECK(values_of<double>(moved) == values_of<double>(part.packed()));
  CHECK(all.reshape({-1}).bytes() == all.bytes());
  CHECK(all.slice(0, 0, 0).reshape({8, 0}).elements() == 0);
  CHECK(counting<double>({1}).reshape({}).elements() == 1);
}

TEST_CASE("reshape gives rows of size one the strides of packed rows", "[tensor]") {
  const std::vector<int64_t> packed = {12, 4, 1};
  CHECK(counting<float>({12}).reshape({1, 3, 4}).strides() == packed);
  CHECK(counting<float>({2, 3, 8}).slice(2, 0, 4).reshape({6, 1, 4}).strides() == std::vector<int64_t>{8, 4, 1});
}

TEST_CASE("conversion between types", "[tensor]") {
  const Tensor tensor = Tensor::from<double>({2, 3}, {0, 1.5, -2.75, 200, 1e10, 3});
  CHECK(values_of<float>(tensor.to(DType::kFloat32)) == std::vector<float>{0, 1.5f, -2.75f, 200, 1e10f, 3});
  CHECK(values_of<int64_t>(tensor.to(DType::kInt64)) == Ids{0, 1, -2, 200, 10000000000, 3});
  CHECK(values_of<uint8_t>(tensor.slice(0, 0, 1).slice(1, 0, 2).to(DType::kUInt8)) == std::vector<uint8_t>{0, 1});
  CHECK(values_of<int32_t>(tensor.slice(1, 1, 2).to(DType::kFloat32).slice(0, 0, 1).to(DType::kInt32)) ==
        std::vector<int32_t>{1});
  CHECK(tensor.to(DType::kFloat64).data<double>() == tensor.data<double>());
}

TEST_CASE("bfloat16 keeps eight bits, rounded to nearest and ties to even", "[tensor]") {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> exact = {0, -0.0F, 1, -2.75F, 0x1p-126F, inf, -inf, 0x1.fep127F};
  const Tensor tensor = Tensor::from({8}, exact);
  CHECK(values_of<float>(tensor.to(DType::kBFloat16).to(DType::kFloat32)) == exact);
  // A step is 2^-7 at 1: halves go to the even neighbour, anything more goes up.
  const Tensor between =
      Tensor::from<float>({5}, {1 + 0x1p-8F, 1 + 0x1p-8F + 0x1p-20F, 1 + 3 * 0x1p-8F, 3.4e38F, 0.1F});
  CHECK(values_of<float>(between.to(DType::kBFloat16).to(DType::kFloat32)) ==
        std::vector<float>{1, 1 + 0x1p-7F, 1 + 0x1p-6F, inf, 0.10009765625F});
  CHECK(std::isnan(static_cast<float>(BFloat16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST_CASE("rows join dimensions or say that they cannot", "[tensor]") {
  const Tensor tensor = counting<double>({2, 3, 4});
  const View<double, 2> rows = tensor.rows<double>();
  CHECK((rows.size[0] == 6 && rows.size[1] == 4 && rows.stride[0] == 4 && rows.stride[1] == 1));
  const View<double, 2> wide = tensor.rows<double>(2);
  CHECK((wide.size[0] == 2 && wide.size[1] == 12 && wide.stride[0] == 12));
  const View<double, 2> columns = tensor.slice(2, 1, 3).rows<double>();
  CHECK((columns.size[0] == 6 && columns.size[1] == 2 && columns.stride[0] == 4));
  CHECK(columns(5, 1) == 22);
  const View<double, 2> one = tensor.slice(2, 3, 4).rows<double>();
  CHECK((one.size[0] == 6 && one.size[1] == 1 && one.stride[0] == 4));
  CHECK(one(5, 0) == 23);
  const View<double, 2> batch_of_one = tensor.slice(0, 1, 2).slice(1, 1, 3).rows<double>();
  CHECK((batch_of_one.size[0] == 2 && batch_of_one.stride[0] == 4 && batch_of_one(1, 0) == 20));
  CHECK_THROWS_WITH(tensor.slice(1, 0, 2).rows<double>(), Contains("rows"));
  CHECK_THROWS_AS(tensor.rows<double>(4), Error);
  CHECK_THROWS_AS(tensor.rows<float>(), Error);
  CHECK(Tensor().rows<double>().data == nullptr);
}

TEST_CASE("a tensor is read as what it is", "[tensor]") {
  const Tensor tensor = counting<float>({2, 2});
  CHECK_THROWS_WITH(tensor.data<double>(), Contains("float32") && Contains("float64"));
  CHECK_THROWS_WITH((tensor.view<float, 3>()), Contains("(2, 2)") && Contains("3 dimensions"));
  CHECK_THROWS_WITH(Tensor().data<float>(), Contains("absent"));
  CHECK((Tensor().view<float, 3>().data) == nullptr);
  CHECK(tensor.slice(0, 1, 2).slice(1, 0, 1).item() == 2);
  CHECK_THROWS_WITH(tensor.item(), Contains("(2, 2)"));
  CHECK_THROWS_WITH(dispatch_float(DType::kInt64, "scale", [](auto) {}), Contains("scale") && Contains("int64"));
}

TEST_CASE("in-place writes stay inside a slice", "[tensor]") {
  Tensor tensor = counting<double>({2, 3});
  Tensor column = tensor.slice(1, 1, 2);
  column.fill_zero();
  CHECK(values_of<double>(tensor) == std::vector<double>{0, 0, 2, 3, 0, 5});
  accumulate(column, Tensor::from<double>({2, 1}, {10, 20}));
  CHECK(values_of<double>(tensor) == std::vector<double>{0, 10, 2, 3, 20, 5});
  Tensor sum = Tensor::zeros({2, 2}, DType::kFloat64);
  accumulate(sum, counting<double>({2, 2, 2}).slice(1, 1, 2).reshape({2, 2}));
  accumulate(sum, counting<double>({4, 2}).slice(0, 1, 3));
  CHECK(values_of<double>(sum) == std::vector<double>{4, 6, 10, 12});
  CHECK_THROWS_WITH(accumulate(sum, tensor), Contains("(2, 3)") && Contains("(2, 2)"));
}

TEST_CASE("memory is counted and given back", "[tensor]") {
  const int64_t before = memory_statistics({}).in_use;
  reset_peak_memory({});
  {
    const Tensor large = Tensor::empty({1 << 18}, DType::kFloat32);
    const Tensor part = large.slice(0, 0, 4);
    CHECK(memory_statistics({}).in_use == before + (1 << 20));
    CHECK(memory_statistics({}).peak == before + (1 << 20));
  }
  CHECK(memory_statistics({}).in_use == before);
  CHECK(memory_statistics({}).peak == before + (1 << 20));
  reset_peak_memory({});
  CHECK(memory_statistics({}).peak == before);
  release_cached_memory({});
  CHECK(memory_statistics({}).reserved <= memory_statistics({}).in_use);
  CHECK_THROWS_AS(Tensor::empty({4}, DType::kFloat32, Device{DeviceKind::kCuda, 60}), Error);  // no machine has 61 GPUs
}

#if !defined(__SANITIZE_ADDRESS__)  // whose allocator ends the program instead of returning null
TEST_CASE("running out of memory is an Error that leaves the count as it was", "[tensor]") {
  const int64_t before = memory_statistics({}).in_use;
  // More than the 2^47 bytes of a process's address space.
  CHECK_THROWS_WITH(Tensor::empty({int64_t{1} << 46}, DType::kFloat64), Contains("out of memory"));
  CHECK(memory_statistics({}).in_use == before);
}
#endif

}  // namespace blockstate
