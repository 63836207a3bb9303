// SPDX-License-Identifier: Apache-2.0
#include "audio/wav_reader.h"

#include <sndfile.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <mutex>
#include <system_error>

#include "audio/header_check.h"
#include "core/base/check.h"

namespace blockstate::audio {

struct AudioReader::File {
  std::string name;
  SF_INFO info{};
  std::unique_ptr<SNDFILE, int (*)(SNDFILE*)> handle{nullptr, sf_close};
  int64_t position = 0;  ///< frame that comes next
  int64_t end = 0;       ///< frame to stop at
  std::vector<float> interleaved;

  bool counted() const { return info.frames != SF_COUNT_MAX; }
  double seconds(int64_t frame) const { return static_cast<double>(frame) / info.samplerate; }
  void open();
  void go_to(int64_t frame);
  int64_t read_block(std::span<float> out);
  void end_of_data();
};

namespace {

void require_file(const std::string& file) {
  std::error_code code;
  const auto status = std::filesystem::status(file, code);
  require(std::filesystem::exists(status), "audio ", file, ": no such file");
  require(!std::filesystem::is_directory(status), "audio ", file, ": wanted a file, found a directory");
  if (std::filesystem::is_regular_file(status)) {
    require(std::filesystem::file_size(file, code) > 0 || code, "audio ", file, ": the file is empty");
  }
}

}  // namespace

void AudioReader::File::open() {
  {
    // libsndfile keeps the reason why an open failed in one place for all threads.
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    handle.reset(sf_open(name.c_str(), SFM_READ, &info));
    if (handle == nullptr) {
      std::string reason = sf_strerror(nullptr);
      while (!reason.empty() && (reason.back() == '.' || reason.back() == '\n')) {
        reason.pop_back();
      }
      if (reason.starts_with("File does not exist")) {  // what it says of a damaged MP3
        reason = "Format not recognised";
      }
      fail("audio ", name, ": wanted an audio file, found one that cannot be decoded (", reason, ")");
    }
  }
  // libsndfile takes any bytes in a file called *.au or *.snd for mu-law.
  require(info.format != (SF_FORMAT_RAW | SF_FORMAT_ULAW), "audio ", name,
          ": wanted an audio file, found one without a header");
  require(info.samplerate > 0 && info.channels > 0, "audio ", name, ": wanted a rate and channels from 1 up, found ",
          info.samplerate, " Hz and ", info.channels, " channels");
  check_header(name);
  require(info.frames > 0, "audio ", name, ": the file holds no audio that can be decoded (0 frames)");
  end = counted() ? info.frames : std::numeric_limits<int64_t>::max();
}

void AudioReader::File::go_to(int64_t frame) {
  if (frame == position) {
    return;
  }
  // An MP3 frame borrows bits from those before it, so a seek into one decodes garbage first: go from the beginning.
  const bool from_start = (info.format & SF_FORMAT_TYPEMASK) == SF_FORMAT_MPEG;
  const int64_t target = !from_start ? frame : frame < position ? 0 : position;
  if (target != position && info.seekable && sf_seek(handle.get(), target, SEEK_SET) == target) {
    position = target;
  }
  require(frame >= position, "audio ", name, ": cannot go back to ", seconds(frame), " s");
  std::vector<float> passed(4096);
  while (position < frame) {
    const auto wanted = static_cast<size_t>(std::min<int64_t>(frame - position, 4096));
    if (read_block(std::span(passed).first(wanted)) == 0) {
      end_of_data();
      fail("audio ", name, ": start ", seconds(frame), " s lies past the end (", seconds(position), " s)");
    }
  }
}

/// Reads and mixes up to one block; 0 at the end of the data.
int64_t AudioReader::File::read_block(std::span<float> out) {
  constexpr int64_t kBlockSamples = 16384;
  const int64_t channels = info.channels;
  const int64_t wanted =
      std::min<int64_t>(static_cast<int64_t>(out.size()), std::max<int64_t>(1, kBlockSamples / channels));
  if (channels == 1) {
    const int64_t got = std::max<int64_t>(0, sf_readf_float(handle.get(), out.data(), wanted));
    position += got;
    return got;
  }
  interleaved.resize(static_cast<size_t>(wanted * channels));
  const int64_t got = std::max<int64_t>(0, sf_readf_float(handle.get(), interleaved.data(), wanted));
  for (int64_t t = 0; t < got; ++t) {
    double sum = 0;
    for (int64_t c = 0; c < channels; ++c) {
      sum += static_cast<double>(interleaved[static_cast<size_t>(t * channels + c)]);
    }
    out[static_cast<size_t>(t)] = static_cast<float>(sum / static_cast<double>(channels));
  }
  position += got;
  return got;
}

/// Error where the data ends before it should.
void AudioReader::File::end_of_data() {
  require(!counted(), "audio ", name, ": the header promises ", static_cast<int64_t>(info.frames), " frames, only ",
          position, " can be decoded");
  require(sf_error(handle.get()) == SF_ERR_NO_ERROR, "audio ", name, ": damaged after ", seconds(position), " s (",
          sf_strerror(handle.get()), ")");
  require(position > 0, "audio ", name, ": the file holds no audio that can be decoded (0 frames)");
}

AudioReader::AudioReader(const std::string& file) : file_(std::make_unique<File>()) {
  require_file(file);
  file_->name = file;
  file_->open();
}

AudioReader::~AudioReader() = default;
AudioReader::AudioReader(AudioReader&&) noexcept = default;
AudioReader& AudioReader::operator=(AudioReader&&) noexcept = default;

const std::string& AudioReader::name() const { return file_->name; }
int64_t AudioReader::rate() const { return file_->info.samplerate; }
int64_t AudioReader::frames() const { return file_->counted() ? file_->info.frames : -1; }
int64_t AudioReader::channels() const { return file_->info.channels; }

int64_t AudioReader::left() const {
  return file_->end == std::numeric_limits<int64_t>::max() ? -1 : file_->end - file_->position;
}

void AudioReader::select(std::optional<double> start, std::optional<double> end) {
  const double from = start.value_or(0);
  require(from >= 0 && (!end || *end >= from), "audio ", name(), ": wanted an interval in seconds, found start ", from,
          " and end ", end.value_or(from));
  const double rate = file_->info.samplerate;
  const double total = file_->counted() ? static_cast<double>(file_->info.frames) : 0x1p62;
  const double first = std::round(from * rate);
  const double last = end ? std::round(*end * rate) : total;
  require(first < total, "audio ", name(), ": start ", from, " s lies past the end (", total / rate, " s)");
  require(last <= total + kEndSlack * rate, "audio ", name(), ": end ", end.value_or(0), " s lies past the end (",
          total / rate, " s)");
  require(first < last, "audio ", name(), ": no sample lies between start ", from, " s and end ", end.value_or(0),
          " s");
  file_->go_to(static_cast<int64_t>(first));
  file_->end =
      !end && !file_->counted() ? std::numeric_limits<int64_t>::max() : static_cast<int64_t>(std::min(last, total));
}

int64_t AudioReader::read(std::span<float> out) {
  File& file = *file_;
  const int64_t first = file.position;
  const auto wanted =
      static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(out.size()), file.end - file.position));
  size_t done = 0;
  while (done < wanted) {
    const int64_t got = file.read_block(out.subspan(done, wanted - done));
    if (got == 0) {
      file.end_of_data();
      break;
    }
    done += static_cast<size_t>(got);
  }
  require_finite(out.first(done), first, *this);
  return static_cast<int64_t>(done);
}

Clip read_clip(const std::string& file, std::optional<double> start, std::optional<double> end) {
  AudioReader reader(file);
  if (start || end) {
    reader.select(start, end);
  }
  return {read_samples(reader), reader.rate()};
}

}  // namespace blockstate::audio
