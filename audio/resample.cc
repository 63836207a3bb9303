// SPDX-License-Identifier: Apache-2.0
#include "audio/resample.h"

#include <soxr.h>

#include <algorithm>
#include <array>

#include "core/base/check.h"

namespace blockstate::audio {

int64_t resampled_length(int64_t samples, int64_t rate_in, int64_t rate_out) {
  // Whole seconds apart, so that nothing overflows.
  return samples / rate_in * rate_out + (2 * (samples % rate_in) * rate_out + rate_in) / (2 * rate_in);
}

struct Resampler::Engine {
  std::unique_ptr<soxr, void (*)(soxr_t)> state{nullptr, soxr_delete};

  /// Feeds `in` (null: no more comes) and appends all that comes out.
  void process(const float* in, size_t count, std::vector<float>& out) {
    std::array<float, 4096> block;
    size_t done = 0;
    while (true) {
      size_t taken = 0;
      size_t made = 0;
      const soxr_error_t error = soxr_process(state.get(), in == nullptr ? nullptr : in + done, count - done, &taken,
                                              block.data(), block.size(), &made);
      require(error == nullptr, "resampling failed: ", soxr_strerror(error));
      out.insert(out.end(), block.begin(), block.begin() + static_cast<std::ptrdiff_t>(made));
      done += taken;
      if (done == count && made < block.size()) {
        return;
      }
    }
  }
};

Resampler::Resampler(int64_t rate_in, int64_t rate_out) : rate_in_(rate_in), rate_out_(rate_out) {
  // 2^30 keeps resampled_length from overflowing; far beyond any recorder.
  require(rate_in > 0 && rate_out > 0 && rate_in < int64_t{1} << 30 && rate_out < int64_t{1} << 30,
          "resampling: wanted rates from 1 Hz up, found ", rate_in, " Hz to ", rate_out, " Hz");
  if (rate_in == rate_out) {
    return;
  }
  engine_ = std::make_unique<Engine>();
  const soxr_io_spec_t io = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
  const soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
  const soxr_runtime_spec_t runtime = soxr_runtime_spec(1);
  soxr_error_t error = nullptr;
  engine_->state.reset(
      soxr_create(static_cast<double>(rate_in), static_cast<double>(rate_out), 1, &error, &io, &quality, &runtime));
  require(error == nullptr && engine_->state != nullptr, "resampling from ", rate_in, " Hz to ", rate_out,
          " Hz cannot be done: ", soxr_strerror(error));
}

Resampler::~Resampler() = default;
Resampler::Resampler(Resampler&&) noexcept = default;
Resampler& Resampler::operator=(Resampler&&) noexcept = default;

void Resampler::push(std::span<const float> in, std::vector<float>& out) {
  if (in.empty()) {
    return;
  }
  const size_t before = out.size();
  if (engine_ == nullptr) {
    out.insert(out.end(), in.begin(), in.end());
  } else {
    engine_->process(in.data(), in.size(), out);
  }
  taken_ += static_cast<int64_t>(in.size());
  given_ += static_cast<int64_t>(out.size() - before);
}

void Resampler::finish(std::vector<float>& out) {
  if (engine_ == nullptr) {
    return;
  }
  const size_t before = out.size();
  engine_->process(nullptr, 0, out);
  // The filter's tail ends within a sample of the exact length; the length is the contract.
  const int64_t wanted = resampled_length(taken_, rate_in_, rate_out_);
  out.resize(before + static_cast<size_t>(std::max<int64_t>(0, wanted - given_)), 0.0f);
  given_ += static_cast<int64_t>(out.size() - before);
}

std::vector<float> resample(std::span<const float> samples, int64_t rate_in, int64_t rate_out) {
  Resampler resampler(rate_in, rate_out);
  std::vector<float> out;
  out.reserve(static_cast<size_t>(resampled_length(static_cast<int64_t>(samples.size()), rate_in, rate_out)) + 4096);
  resampler.push(samples, out);
  resampler.finish(out);
  return out;
}

ResampledSource::ResampledSource(std::unique_ptr<SampleSource> source, int64_t rate)
    : source_(std::move(source)), rate_(rate), resampler_(source_->rate(), rate), piece_(8192) {}

int64_t ResampledSource::read(std::span<float> out) {
  size_t done = 0;
  while (done < out.size()) {
    if (ready_at_ == ready_.size()) {
      if (finished_) {
        break;
      }
      ready_.clear();
      ready_at_ = 0;
      const int64_t got = source_->read(piece_);
      resampler_.push(std::span(piece_).first(static_cast<size_t>(got)), ready_);
      if (got < static_cast<int64_t>(piece_.size())) {
        resampler_.finish(ready_);
        finished_ = true;
      }
    }
    const size_t count = std::min(out.size() - done, ready_.size() - ready_at_);
    std::copy_n(ready_.begin() + static_cast<std::ptrdiff_t>(ready_at_), count,
                out.begin() + static_cast<std::ptrdiff_t>(done));
    ready_at_ += count;
    done += count;
  }
  return static_cast<int64_t>(done);
}

}  // namespace blockstate::audio
