// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>
#include <cmath>
#include <complex>
#include <numbers>

#include "audio/resample.h"
#include "core/base/check.h"
#include "core/base/random.h"
#include "tests/audio/audio_files.h"

namespace blockstate::audio {
namespace {

using Catch::Matchers::Contains;

struct Rates {
  int64_t in;
  int64_t out;
};
const std::vector<Rates> kRates = {{44100, 8000}, {48000, 16000}, {8000, 16000}, {16000, 8000},
                                   {11025, 8000}, {44100, 48000}, {8000, 8000},  {96000, 8000}};

/// Amplitude and phase of the tone `hz` in x[first, last), by projection under a Hann window.
std::complex<double> tone(const std::vector<float>& x, size_t first, size_t last, double hz, double rate) {
  std::complex<double> sum = 0;
  double weights = 0;
  for (size_t t = first; t < last; ++t) {
    const double w =
        1 - std::cos(2 * std::numbers::pi * (static_cast<double>(t - first) + 0.5) / static_cast<double>(last - first));
    sum += w * static_cast<double>(x[t]) * std::polar(1.0, -2 * std::numbers::pi * hz * static_cast<double>(t) / rate);
    weights += w;
  }
  return 2.0 * sum / weights;
}

double rms(const std::vector<float>& x, size_t first, size_t last) {
  double sum = 0;
  for (size_t t = first; t < last; ++t) {
    sum += static_cast<double>(x[t]) * static_cast<double>(x[t]);
  }
  return std::sqrt(sum / static_cast<double>(last - first));
}

TEST_CASE("resample: T samples become round(T out / in)") {
  for (const auto& [in, out] : kRates) {
    for (const int64_t samples : {1, 2, 3, 5, 6, 7, 100, 101, 4095, 4096, 4097, 20'011}) {
      CAPTURE(in, out, samples);
      const auto expected =
          std::floor(static_cast<double>(samples) * static_cast<double>(out) / static_cast<double>(in) + 0.5);
      CHECK(resampled_length(samples, in, out) == static_cast<int64_t>(expected));
      CHECK(static_cast<double>(resample(std::vector<float>(static_cast<size_t>(samples), 0.1f), in, out).size()) ==
            expected);
    }
  }
  CHECK(resample({}, 8000, 16000).empty());
  CHECK(resampled_length(int64_t{1} << 40, 192'000, 8000) == ((int64_t{1} << 40) + 12) / 24);
}

TEST_CASE("resample: a tone keeps frequency, amplitude and phase") {
  for (const auto& [in, out] : kRates) {
    for (const double hz : {100.0, 1000.0, 3400.0}) {
      CAPTURE(in, out, hz);
      const auto rate_in = static_cast<double>(in);
      const auto rate_out = static_cast<double>(out);
      const std::vector<float> x = resample(test::sine(2 * in, hz, rate_in, 0.5, 0.3), in, out);
      const size_t n = x.size();
      const std::complex<double> early = tone(x, n / 10, n / 2, hz, rate_out);
      const std::complex<double> late = tone(x, n / 2, n - n / 10, hz, rate_out);
      CHECK(std::abs(early) == Approx(0.5).epsilon(1e-3));
      CHECK(std::abs(late) == Approx(0.5).epsilon(1e-3));
      // sin(a + 0.3) = Re(exp(i (a + 0.3 - pi/2))); both windows: a delay of 0, a drift of 0.
      const std::complex<double> expected = std::polar(0.5, 0.3 - std::numbers::pi / 2);
      CHECK(std::abs(early - expected) < 5e-4);
      CHECK(std::abs(late - expected) < 5e-4);
      // Negative control: 0.1 % off in frequency is seen.
      CHECK(std::abs(tone(x, n / 2, n - n / 10, hz * 1.001, rate_out) - expected) > 5e-3);
    }
  }
}

TEST_CASE("resample: what lies above the new Nyquist rate does not fold back") {
  const std::vector<float> high = test::sine(32'000, 5000, 16000);
  const std::vector<float> x = resample(high, 16000, 8000);
  CHECK(rms(x, 800, x.size() - 800) < 1e-5);
  std::vector<float> every_second;
  for (size_t t = 0; t < high.size(); t += 2) {
    every_second.push_back(high[t]);
  }
  CHECK(rms(every_second, 800, every_second.size() - 800) > 0.3);  // the control folds back whole
}

TEST_CASE("resample: pieces of any size give the bits of the whole") {
  RandomStream random(11);
  std::vector<float> samples(70'001);
  for (float& x : samples) {
    x = static_cast<float>(2 * random.uniform() - 1);
  }
  for (const auto& [in, out] : kRates) {
    const std::vector<float> whole = resample(samples, in, out);
    for (const size_t most : {1, 17, 1000, 9000}) {
      CAPTURE(in, out, most);
      const size_t count = most == 1 ? 3000 : samples.size();
      Resampler resampler(in, out);
      std::vector<float> pieces;
      for (size_t at = 0; at < count;) {
        const size_t size = std::min(count - at, 1 + static_cast<size_t>(random.below(most)));
        resampler.push(std::span(samples).subspan(at, size), pieces);
        at += size;
      }
      resampler.finish(pieces);
      CHECK(pieces == (count == samples.size() ? whole : resample(std::span(samples).first(count), in, out)));
    }
  }
}

/// Samples from memory.
class MemorySource : public SampleSource {
 public:
  MemorySource(std::vector<float> samples, int64_t rate) : samples_(std::move(samples)), rate_(rate) {}
  const std::string& name() const override { return name_; }
  int64_t rate() const override { return rate_; }
  int64_t read(std::span<float> out) override {
    const size_t count = std::min(out.size(), samples_.size() - at_);
    std::copy_n(samples_.begin() + static_cast<std::ptrdiff_t>(at_), count, out.begin());
    at_ += count;
    return static_cast<int64_t>(count);
  }

 private:
  std::vector<float> samples_;
  int64_t rate_;
  size_t at_ = 0;
  std::string name_ = "memory";
};

TEST_CASE("resample: a resampled source gives the bits of one shot, whatever is asked of it at a time") {
  const std::vector<float> samples = test::sine(8192 * 3, 700, 44100);  // its end falls on the end of a piece
  for (const size_t cut : {0, 1, 5000}) {
    const std::vector<float> part(samples.begin(), samples.end() - static_cast<std::ptrdiff_t>(cut));
    const std::vector<float> whole = resample(part, 44100, 16000);
    for (const size_t size : {1, 100, 100'000}) {
      CAPTURE(cut, size);
      ResampledSource source(std::make_unique<MemorySource>(part, 44100), 16000);
      CHECK(source.rate() == 16000);
      std::vector<float> all;
      std::vector<float> piece(size);
      for (int64_t got = 1; got > 0;) {
        got = source.read(piece);
        all.insert(all.end(), piece.begin(), piece.begin() + got);
      }
      CHECK(all == whole);
    }
  }
}

TEST_CASE("resample: a rate of 0 is refused") {
  CHECK_THROWS_WITH(Resampler(0, 8000), Contains("found 0 Hz to 8000 Hz"));
  CHECK_THROWS_WITH(Resampler(8000, 0), Contains("found 8000 Hz to 0 Hz"));
  CHECK_THROWS_WITH(Resampler(8000, -1), Contains("rates from 1 Hz up"));
}

}  // namespace
}  // namespace blockstate::audio
