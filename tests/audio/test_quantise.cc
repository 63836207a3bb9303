// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "audio/quantise.h"
#include "audio/waveform.h"
#include "core/base/check.h"

namespace blockstate::audio {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("mu-law: codes by hand") {
  CHECK(mulaw_encode(0.0f) == 128);
  CHECK(mulaw_encode(-0.0f) == 128);
  CHECK(mulaw_encode(1.0f) == 255);
  CHECK(mulaw_encode(-1.0f) == 0);
  CHECK(mulaw_encode(7.5f) == 255);
  CHECK(mulaw_encode(-std::numeric_limits<float>::infinity()) == 0);
  // c = ln(1 + 255 * 0.1) / ln 256 = 3.277145 / 5.545177 = 0.590990; 128 c = 75.65
  CHECK(mulaw_encode(0.1f) == 128 + 76);
  CHECK(mulaw_encode(-0.1f) == 128 - 76);
  // c = 1/2 where |x| = (256^0.5 - 1) / 255 = 15/255
  CHECK(mulaw_encode(15.0f / 255.0f) == 192);
  CHECK(mulaw_decode(192) == Approx(15.0 / 255.0).epsilon(1e-7));
  CHECK(mulaw_decode(128) == 0.0f);
  CHECK(mulaw_decode(0) == -1.0f);
  // the published decoder: c = code/128 - 1
  CHECK(mulaw_decode(255) == Approx((std::pow(256.0, 127.0 / 128) - 1) / 255).epsilon(1e-7));
}

TEST_CASE("mu-law and linear: code to sample to code is the identity, and both rise with the code") {
  for (int64_t code = 0; code < kCodes; ++code) {
    CAPTURE(code);
    CHECK(mulaw_encode(mulaw_decode(code)) == code);
    CHECK(linear8_encode(linear8_decode(code)) == code);
    if (code > 0) {
      CHECK(mulaw_decode(code) > mulaw_decode(code - 1));
      CHECK(linear8_decode(code) - linear8_decode(code - 1) == 1.0f / 128);
    }
  }
}

TEST_CASE("mu-law and linear: symmetric, monotone, and within half a step") {
  int64_t last_mulaw = 0;
  int64_t last_linear = 0;
  int64_t wrong = 0;
  for (int64_t k = -20'000; k <= 20'000; ++k) {
    const float x = static_cast<float>(k) / 20'000.0f;
    const int64_t mulaw = mulaw_encode(x);
    const int64_t linear = linear8_encode(x);
    wrong += mulaw < last_mulaw || linear < last_linear;
    wrong += mulaw > 0 && mulaw < 255 && mulaw_encode(-x) != kCodes - mulaw;
    wrong += linear > 0 && linear < 255 && linear8_encode(-x) != kCodes - linear;
    // A step of c is 1/128, so a step of x is at most (|x| + 1/255) ln 256 / 128; the top code has a whole step.
    const double step = (std::abs(static_cast<double>(x)) + 1.0 / 255) * std::log(256.0) / 128;
    wrong +=
        std::abs(static_cast<double>(mulaw_decode(mulaw)) - static_cast<double>(x)) > (x > 0.97f ? 1.03 : 0.52) * step;
    wrong += std::abs(static_cast<double>(linear8_decode(linear)) - static_cast<double>(x)) >
             (x > 0.99f ? 1.0 : 0.5) / 128 + 1e-7;
    last_mulaw = mulaw;
    last_linear = linear;
  }
  CHECK(wrong == 0);
}

TEST_CASE("linear: codes by hand, ties away from zero") {
  CHECK(linear8_encode(0.0f) == 128);
  CHECK(linear8_encode(0.5f) == 192);
  CHECK(linear8_encode(-1.0f) == 0);
  CHECK(linear8_encode(1.0f) == 255);
  CHECK(linear8_encode(0.5f / 128) == 129);
  CHECK(linear8_encode(-0.5f / 128) == 127);
  CHECK(linear8_encode(0.49f / 128) == 128);
}

TEST_CASE("codes: whole signals, and what is refused") {
  const std::vector<float> samples = {0.0f, -1.0f, 0.25f};
  CHECK(linear8_encode(samples) == std::vector<int64_t>{128, 0, 160});
  CHECK(linear8_decode(std::vector<int64_t>{128, 0, 160}) == samples);
  CHECK(mulaw_decode(mulaw_encode(std::vector<float>{0.0f})) == std::vector<float>{0.0f});
  CHECK_THROWS_WITH(mulaw_encode(std::numeric_limits<float>::quiet_NaN()), Contains("NaN"));
  CHECK_THROWS_WITH(linear8_encode(std::numeric_limits<float>::quiet_NaN()), Contains("NaN"));
  CHECK_THROWS_WITH(mulaw_decode(256), Contains("found 256"));
  CHECK_THROWS_WITH(linear8_decode(-1), Contains("found -1"));
}

TEST_CASE("waveform: frames of a patch, the last one filled up with zeros") {
  const std::vector<float> samples = {1, 2, 3, 4, 5, 6, 7};
  CHECK(patch_frames(samples, 1) == samples);
  CHECK(patch_frames(samples, 7) == samples);
  CHECK(patch_frames(samples, 3) == std::vector<float>{1, 2, 3, 4, 5, 6, 7, 0, 0});
  CHECK(patch_steps(7, 3) == 3);
  CHECK(patch_steps(6, 3) == 2);
  CHECK(patch_steps(1, 16) == 1);
  CHECK(patch_steps(0, 16) == 0);
  CHECK_THROWS_WITH(patch_steps(7, 0), Contains("data.patch") && Contains("found 0"));
}

}  // namespace
}  // namespace blockstate::audio
