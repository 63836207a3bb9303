// SPDX-License-Identifier: Apache-2.0
// For any split of a sequence, k chunks with carry equal one pass: in outputs, in every parameter gradient and in the
// gradient of the incoming carry. Each comparison has controls that must fail.
#include <catch2/catch.hpp>

#include "tests/nn/law_checks.h"

namespace blockstate {
namespace {

using test::Handover;
using test::law_subject;
using test::LawSizes;
using test::Outcome;
using test::random_input;
using test::Subject;

// float64 rounds at 1e-16; sums over the steps, heads and states of these shapes stay far below this.
constexpr double kLaw = 1e-10;
constexpr int64_t kWidth = LawSizes{}.width;

}  // namespace

TEST_CASE("k chunks with carry equal one pass for every sublayer and stacks of them", "[law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  const test::LawCase it = test::plain_case(name, {}, 2, 6, 19, kLaw, DType::kFloat64);
  const Outcome whole = it.run({});
  for (const std::vector<int64_t>& cuts :
       {std::vector<int64_t>{9}, {1}, {18}, {4, 8, 12, 16}, {2, 3, 11}, {5, 6, 7, 8, 9, 10}}) {
    test::check_split(it, whole, cuts);
  }
  test::check_random_splits(it, whole, 1, 3);
  if (test::remembers(it)) {
    test::check_controls(it, whole, 9);
  }
}

TEST_CASE("the first chunk needs no carry", "[law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  const Subject subject = law_subject(name);
  const Tensor x = random_input(2, 13, kWidth, 3);
  const nn::Sequence sequence = nn::plain_sequence(2, 13);
  const Outcome whole = test::run_chunks(subject, x, sequence, {}, {});
  CHECK(test::distance(test::run_chunks(subject, x, sequence, {3, 7, 8}, {}), whole) <= kLaw);
  // Without a carry at all (plain training) the outputs are the same too.
  const Variable plain = subject.forward(Variable(x), sequence, nullptr);
  double off = 0;
  const std::vector<double> values = test::values_of(plain.value());
  for (size_t i = 0; i < values.size(); ++i) {
    off = std::max(off, std::abs(values[i] - whole.tensors.at("y")[i]));
  }
  CHECK(off <= kLaw);
}

TEST_CASE("steps of length one equal one pass", "[law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  const Subject subject = law_subject(name);
  const Tensor x = random_input(1, 11, kWidth, 8);
  const nn::Sequence sequence = nn::plain_sequence(1, 11);
  std::vector<int64_t> cuts;
  for (int64_t t = 1; t < 11; ++t) {
    cuts.push_back(t);
  }
  const Outcome whole = test::run_chunks(subject, x, sequence, {}, {});
  std::string worst;
  const double off = test::distance(test::run_chunks(subject, x, sequence, cuts, {}), whole, &worst);
  INFO(name << ": worst in " << worst);
  CHECK(off <= kLaw);
}

TEST_CASE("outputs ignore what comes after them", "[law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  const Subject subject = law_subject(name);
  const int64_t L = 13;
  const nn::Sequence sequence = nn::plain_sequence(1, L);
  const Tensor x = random_input(1, L, kWidth, 3);
  const std::vector<double> plain = test::values_of(subject.forward(Variable(x), sequence, nullptr).value());
  for (const int64_t t : {int64_t{0}, int64_t{3}, int64_t{4}, int64_t{7}, int64_t{12}}) {
    Tensor changed = x.clone();
    changed.data<double>()[t * kWidth + 1] += 1;
    const std::vector<double> moved = test::values_of(subject.forward(Variable(changed), sequence, nullptr).value());
    bool same_before = true, differs_after = false;
    for (int64_t i = 0; i < L * kWidth; ++i) {
      if (i / kWidth < t) {
        same_before = same_before && moved[static_cast<size_t>(i)] == plain[static_cast<size_t>(i)];
      } else {
        differs_after = differs_after || moved[static_cast<size_t>(i)] != plain[static_cast<size_t>(i)];
      }
    }
    INFO(name << " at step " << t);
    CHECK(same_before);
    // A step that does not see itself may leave the last output alone.
    CHECK((differs_after || (name == "strict" && t == L - 1)));
  }
}

TEST_CASE("packed records equal separate ones, and padding is the identity", "[law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  const Subject subject = law_subject(name);
  // One row of three records at multiples of the stride 4, with gaps; against each record alone in its row.
  const std::vector<int64_t> lengths = {6, 4, 7};
  const std::vector<int64_t> begins = {0, 8, 12};
  const int64_t L = 21;
  const Tensor x = random_input(1, L, kWidth, 3);
  std::vector<int64_t> position(L, -1), record(L, -1);
  for (size_t r = 0; r < lengths.size(); ++r) {
    for (int64_t i = 0; i < lengths[r]; ++i) {
      position[static_cast<size_t>(begins[r] + i)] = i;
      record[static_cast<size_t>(begins[r] + i)] = static_cast<int64_t>(r);
    }
  }
  const nn::Sequence packed = nn::make_sequence(Tensor::from({1, L}, position), Tensor::from({1, L}, record), 3, 0);
  const Outcome together = test::run_chunks(subject, x, packed, {}, {});
  const Outcome in_chunks = test::run_chunks(subject, x, packed, {5, 13}, {});
  std::string worst;
  const double off = test::distance(in_chunks, together, &worst);
  INFO(name << ": worst in " << worst);
  CHECK(off <= kLaw);

  for (size_t r = 0; r < lengths.size(); ++r) {
    const Tensor alone = x.slice(1, begins[r], begins[r] + lengths[r]).packed();
    const std::vector<double> separate =
        test::values_of(subject.forward(Variable(alone), nn::plain_sequence(1, lengths[r]), nullptr).value());
    double error = 0;
    for (int64_t i = 0; i < lengths[r] * kWidth; ++i) {
      error = std::max(error, std::abs(separate[static_cast<size_t>(i)] -
                                       together.tensors.at("y")[static_cast<size_t>(begins[r] * kWidth + i)]));
    }
    INFO(name << ", record " << r);
    CHECK(error <= kLaw);
  }
}

TEST_CASE("a shorter row's carry is that of its own last step", "[law]") {
  const std::string name = GENERATE(from_range(test::law_subjects()));
  const Subject subject = law_subject(name);
  const int64_t L = 12, shorter = 7;
  const Tensor x = random_input(2, L, kWidth, 3);
  std::vector<int64_t> position, record;
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t t = 0; t < L; ++t) {
      const bool valid = b == 0 || t < shorter;
      position.push_back(valid ? t : -1);
      record.push_back(valid ? b : -1);
    }
  }
  const auto ragged = test::carry_after(
      subject, x, nn::make_sequence(Tensor::from({2, L}, position), Tensor::from({2, L}, record), 2, 0));
  const auto alone =
      test::carry_after(subject, x.slice(0, 1, 2).slice(1, 0, shorter).packed(), nn::plain_sequence(1, shorter));
  for (const auto& [key, value] : ragged) {
    if (name.find("mf_") != std::string::npos && key.find("context.") != std::string::npos) {
      continue;  // read by the record's next window only, and this record has ended
    }
    const Tensor row = value.slice(0, 1, 2).packed();
    const Tensor wanted = alone.at(key).packed();
    // Windows that are not full yet are right-aligned: the longer batch row only adds zeros before them.
    const int64_t extra = row.rank() > 1 ? row.size(1) - wanted.size(1) : 0;
    REQUIRE(extra >= 0);
    const std::vector<double> found = test::values_of(row.slice(1, extra, row.size(1)).packed());
    const std::vector<double> expected = test::values_of(wanted);
    REQUIRE(found.size() == expected.size());
    double error = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      error = std::max(error, std::abs(found[i] - expected[i]));
    }
    INFO(name << ", carry " << key);
    CHECK(error <= kLaw);
  }
}

}  // namespace blockstate
