// SPDX-License-Identifier: Apache-2.0
// The chunk-and-carry law on a GPU in float32, over random splits: outputs, the carry left, gradients of parameters, of
// the input and of the incoming carry, and the parameters after an optimiser's step equal those of one pass. Each
// comparison has controls that must fail.
#include <catch2/catch.hpp>

#include "tests/nn/law_checks.h"
#include "tests/support/tolerances.h"

namespace blockstate {
namespace {

using test::LawCase;
using test::LawSizes;
using test::Outcome;

constexpr Device kGpu{DeviceKind::kCuda, 0};
constexpr double kLaw = test::kFloat32.rel;

/// Past the tiles of attention, heads that fill a vector, windows that no tile divides.
constexpr LawSizes kWide{.width = 64,
                         .heads = 4,
                         .mamba_state = 16,
                         .s4d_state = 32,
                         .window = 40,
                         .strict_window = 33,
                         .block = 32,
                         .block_states = 4};

}  // namespace

TEST_CASE("k chunks with carry equal one pass on a GPU", "[cuda][law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  for (const bool wide : {false, true}) {
    const LawCase it = wide ? test::plain_case(name, kWide, 2, 70, 333, kLaw, DType::kFloat32, kGpu)
                            : test::plain_case(name, {}, 3, 6, 61, kLaw, DType::kFloat32, kGpu);
    const Outcome whole = it.run({});
    test::check_random_splits(it, whole, wide ? 17 : 11, 4);
    if (test::remembers(it)) {
      test::check_controls(it, whole, wide ? 150 : 30);
    }
  }
}

TEST_CASE("steps of length one equal one pass on a GPU", "[cuda][law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  for (const int64_t before : {0, 6}) {
    const LawCase it = test::plain_case(name, {}, 1, before, 23, kLaw, DType::kFloat32, kGpu);
    std::vector<int64_t> cuts(22);
    std::iota(cuts.begin(), cuts.end(), 1);
    test::check_split(it, it.run({}), cuts);
  }
}

TEST_CASE("chunks of packed and padded rows equal one pass on a GPU, and packed records separate ones", "[cuda][law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  for (const bool wide : {false, true}) {
    const LawSizes sizes = wide ? kWide : LawSizes{};
    const int64_t L = wide ? 331 : 61;
    // Records of one step, of a whole window, of odd lengths; the last row ends early.
    const std::vector<std::vector<int64_t>> rows =
        wide ? std::vector<std::vector<int64_t>>{{70, 32, 1, 150}, {331}, {101}}
             : std::vector<std::vector<int64_t>>{{14, 4, 1, 7, 19}, {61}, {18}};
    LawCase it{name,
               test::law_subject(name, sizes, DType::kFloat32, kGpu),
               test::random_input(3, L, sizes.width, 3, DType::kFloat32, kGpu),
               test::packed_sequence(rows, L, sizes.block, kGpu),
               {},
               kLaw};
    const Outcome whole = it.run({});
    test::check_random_splits(it, whole, wide ? 23 : 29, 4);
    if (test::remembers(it)) {
      test::check_controls(it, whole, wide ? 41 : 9);
    }

    const std::vector<double>& y = whole.tensors.at("y");
    double largest = 0, error = 0;
    for (size_t b = 0; b < rows.size(); ++b) {
      int64_t begin = 0;
      for (const int64_t length : rows[b]) {
        const auto row = static_cast<int64_t>(b);
        const Tensor alone = it.x.slice(0, row, row + 1).slice(1, begin, begin + length).packed();
        const std::vector<double> separate = test::values_of(
            it.subject.forward(Variable(alone), nn::plain_sequence(1, length, 0, kGpu), nullptr).value());
        for (size_t i = 0; i < separate.size(); ++i) {
          const double together = y[static_cast<size_t>((row * L + begin) * sizes.width) + i];
          largest = std::max(largest, std::abs(separate[i]));
          error = std::max(error, std::abs(separate[i] - together));
        }
        begin += (length + sizes.block - 1) / sizes.block * sizes.block;
      }
    }
    INFO(name << (wide ? ", wide" : ", narrow"));
    CHECK(error <= kLaw * largest);
  }
}

TEST_CASE("chunks of a long row equal one pass on a GPU", "[cuda][law]") {
  // One pass scans its row in segments side by side, the chunks walk theirs from end to end.
  const std::string name = GENERATE("mamba", "s4d", "mf_mamba", "mf_s4d", "window", "mamba window");
  const LawCase it = test::plain_case(name, kWide, 1, 70, 4500, kLaw, DType::kFloat32, kGpu);
  const Outcome whole = it.run({});
  test::check_random_splits(it, whole, 5, 3);
  test::check_controls(it, whole, 2100);
}

}  // namespace blockstate
