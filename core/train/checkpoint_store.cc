// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <system_error>

#include "core/base/check.h"
#include "core/train/checkpoint.h"

namespace blockstate::train {
namespace {

namespace fs = std::filesystem;

constexpr size_t kKeptLast = 2;

/// The step that a directory's name says; nullopt for other names.
std::optional<int64_t> step_of(const std::string& name) {
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || step < 0 || std::to_string(step) != name) {
    return std::nullopt;
  }
  return step;
}

}  // namespace

CheckpointStore::CheckpointStore(const fs::path& run_directory) : directory_(run_directory / "checkpoints") {}

void CheckpointStore::prepare() const {
  std::error_code error;
  fs::create_directories(directory_, error);
  require(!error, directory_.string(), ": cannot make this directory: ", error.message());
  std::vector<fs::path> stale;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory_)) {
    if (entry.path().filename().string().rfind(kTemporaryPrefix, 0) == 0) {
      stale.push_back(entry.path());
    }
  }
  for (const fs::path& path : stale) {
    fs::remove_all(path, error);
    require(!error, path.string(), ": cannot remove what an interrupted run left: ", error.message());
  }
}

void CheckpointStore::save(const Checkpoint& checkpoint) const {
  const int64_t step = checkpoint.state.step;
  write_checkpoint(directory_ / std::to_string(step), checkpoint);
  const std::vector<CheckpointPlace> all = list();
  for (size_t i = 0; i + kKeptLast < all.size(); ++i) {
    if (all[i].step == step || all[i].step == checkpoint.state.best_step) {
      continue;
    }
    // Renamed first, so that an interruption leaves no half checkpoint under a step's name.
    const fs::path doomed = directory_ / (kTemporaryPrefix + all[i].directory.filename().string());
    std::error_code error;
    fs::remove_all(doomed, error);
    fs::rename(all[i].directory, doomed, error);
    if (!error) {
      fs::remove_all(doomed, error);
    }
    require(!error, all[i].directory.string(), ": cannot remove this old checkpoint: ", error.message());
  }
}

std::vector<CheckpointPlace> CheckpointStore::list() const {
  std::vector<CheckpointPlace> places;
  if (!fs::is_directory(directory_)) {
    return places;
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(directory_)) {
    const std::optional<int64_t> step = step_of(entry.path().filename().string());
    if (step && entry.is_directory()) {
      places.push_back({*step, entry.path()});
    }
  }
  std::sort(places.begin(), places.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return places;
}

std::optional<CheckpointPlace> CheckpointStore::latest() const {
  const std::vector<CheckpointPlace> all = list();
  return all.empty() ? std::nullopt : std::optional(all.back());
}

std::optional<CheckpointPlace> CheckpointStore::best() const {
  const std::vector<CheckpointPlace> all = list();
  if (all.empty()) {
    return std::nullopt;
  }
  const std::optional<int64_t> best_step = read_state(all.back().directory).best_step;
  if (!best_step) {
    return all.back();
  }
  const auto found = std::find_if(all.begin(), all.end(), [&](const auto& place) { return place.step == *best_step; });
  require(found != all.end(), all.back().directory.string(), ": its state.json names step ", *best_step,
          " as the best, but there is no checkpoint of that step beside it");
  return *found;
}

}  // namespace blockstate::train
