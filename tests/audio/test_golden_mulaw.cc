// SPDX-License-Identifier: Apache-2.0
// Mu-law against 40-digit values (tests/golden/README.md).
#include <catch2/catch.hpp>

#include "audio/quantise.h"
#include "core/train/safetensors.h"

namespace blockstate::audio {

TEST_CASE("mu-law: every code's sample is that of mpmath") {
  const Tensor decoded = train::SafetensorsFile(BLOCKSTATE_TEST_DATA "/golden/mulaw.safetensors").read("decoded");
  REQUIRE(decoded.elements() == kCodes);
  for (int64_t code = 0; code < kCodes; ++code) {
    CAPTURE(code);
    CHECK(mulaw_decode(code) == Approx(decoded.data<double>()[code]).epsilon(1e-7).margin(0));  // float rounds at 6e-8
  }
}

TEST_CASE("mu-law: codes are at most one from SaShiMi's") {
  // SaShiMi truncates (c + 1)/2 * 255.99 + 0.005; we round to the nearest of 256 steps, so that silence is a code of
  // its own (quantise.h). The two grids are shifted by half a step, and differ by 0 or 1 everywhere.
  const Tensor codes = train::SafetensorsFile(BLOCKSTATE_TEST_DATA "/golden/mulaw.safetensors").read("code");
  int64_t equal = 0, far = 0;
  for (int64_t i = -32768; i < 32768; ++i) {
    const int64_t ours = mulaw_encode(static_cast<float>(i) / 32768.0f);
    const int64_t theirs = codes.data<uint8_t>()[i + 32768];
    equal += ours == theirs;
    far += ours - theirs < 0 || ours - theirs > 1;
  }
  CHECK(far == 0);
  CHECK(equal > 65536 / 3);
}

}  // namespace blockstate::audio
