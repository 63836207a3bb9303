// SPDX-License-Identifier: Apache-2.0
// 8-bit codes of samples. Both codecs are mid-tread and symmetric: code 128 is exactly 0 (silence, and the start token
// of waveform models), encode(-x) = 256 - encode(x) but at the ends, ties go away from zero, samples beyond full scale
// are clipped, and the gain is the file's own. SaShiMi's data code (2202.09729) instead scales each clip by its minimum
// and maximum, which moves silence and gives every clip its own gain, and truncates, which puts 0 on a boundary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace blockstate::audio {

constexpr int64_t kCodes = 256;
constexpr int64_t kZeroCode = 128;

/// c = sign(x) ln(1 + 255 |x|) / ln 256 with x clipped to [-1, 1]; code = 128 + round(128 c), at most 255.
int64_t mulaw_encode(float sample);
/// c = code/128 - 1; x = sign(c) (256^|c| - 1) / 255. Error: a code outside 0..255.
float mulaw_decode(int64_t code);

/// code = 128 + round(128 x) with x clipped to [-1, 1], at most 255.
int64_t linear8_encode(float sample);
/// x = code/128 - 1. Error: a code outside 0..255.
float linear8_decode(int64_t code);

/// (T) samples to (T) codes and back.
std::vector<int64_t> mulaw_encode(std::span<const float> samples);
std::vector<float> mulaw_decode(std::span<const int64_t> codes);
std::vector<int64_t> linear8_encode(std::span<const float> samples);
std::vector<float> linear8_decode(std::span<const int64_t> codes);

}  // namespace blockstate::audio
