// SPDX-License-Identifier: Apache-2.0
// The law's comparisons over random splits, on any device.
#pragma once

#include <catch2/catch.hpp>

#include "tests/nn/law_subjects.h"

namespace blockstate::test {

/// What a subject is run on, and how near the law must be met (relative to the largest element of each tensor).
struct LawCase {
  std::string name;
  Subject subject;
  Tensor x;
  nn::Sequence sequence;
  std::map<std::string, Tensor> start;
  double law;

  DType dtype() const { return x.dtype(); }
  Outcome run(const std::vector<int64_t>& cuts, Handover handover = Handover::kWhole) const {
    return run_chunks(subject, x, sequence, cuts, start, handover);
  }
};

/// B rows that go on from a carry of `before` steps; none where that is 0.
inline LawCase plain_case(const std::string& name, const LawSizes& sizes, int64_t B, int64_t before, int64_t L,
                          double law, DType dtype, Device device = {}) {
  LawCase it{name, law_subject(name, sizes, dtype, device), random_input(B, L, sizes.width, 3, dtype, device), {}, {},
             law};
  it.sequence = nn::plain_sequence(B, L, before, device);
  if (before > 0) {
    it.start = carry_after(it.subject, random_input(B, before, sizes.width, 4, dtype, device),
                           nn::plain_sequence(B, before, 0, device));
  }
  return it;
}

inline void check_split(const LawCase& it, const Outcome& whole, const std::vector<int64_t>& cuts) {
  const Outcome found = it.run(cuts);
  std::string worst, worst_step;
  const double off = distance(found, whole, &worst);
  const double step = step_distance(found, whole, it.law, it.dtype(), &worst_step);
  INFO(it.name << ", " << cuts.size() + 1 << " chunks, the first cut at " << cuts[0] << ": worst in " << worst
               << ", after a step in " << worst_step);
  CHECK(off <= it.law);
  CHECK(step <= 1);
}

/// Splits into a few chunks and into many, each with a chunk of one step.
inline void check_random_splits(const LawCase& it, const Outcome& whole, uint64_t key, int splits) {
  for (int i = 0; i < splits; ++i) {
    check_split(it, whole, random_cuts(mix_key(key, static_cast<uint64_t>(i)), it.sequence.length(), 2 + 3 * i));
  }
}

/// With a carry that is zero, of one step too early, or that lets no gradient pass, the comparisons must fail.
inline void check_controls(const LawCase& it, const Outcome& whole, int64_t cut) {
  for (const Handover handover : {Handover::kZeroed, Handover::kShifted, Handover::kDetached}) {
    INFO(it.name << ", cut at " << cut << ", handover " << static_cast<int>(handover));
    const Outcome wrong = it.run({cut}, handover);
    CHECK(distance(wrong, whole) >= 10 * it.law);
    CHECK(step_distance(wrong, whole, it.law, it.dtype()) > 1);
  }
}

/// Whether the subject remembers anything; an MLP does not, and has no controls.
inline bool remembers(const LawCase& it) { return !carry_after(it.subject, it.x, it.sequence).empty(); }

}  // namespace blockstate::test
