// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA sources in a build without them: there is no GPU, and whoever asks for one is told so.
#include "core/base/check.h"
#include "kernels/attention_range.h"
#include "kernels/copy.h"
#include "kernels/cuda_exec.h"
#include "kernels/graph_memory.h"
#include "kernels/selective_scan.h"

namespace blockstate::kernels::cuda {
namespace {

constexpr const char* kMissing =
    "this build of blockstate has no CUDA code; build it with the preset \"cuda\", or use device = \"cpu\"";

}  // namespace

int device_count() { return 0; }
std::string why_unusable(int) { return kMissing; }
DeviceProperties device_properties(int) { fail(kMissing); }
Exec exec(int) { fail(kMissing); }
void synchronize(const Exec&) { fail(kMissing); }
std::byte* take_memory(const Exec&, int64_t) { fail(kMissing); }
void give_memory(const Exec&, std::byte*) {}
MemoryUse memory_use(const Exec&) { return {}; }
void reset_peak_memory(const Exec&) {}
int64_t free_memory(const Exec&) { return 0; }
void release_memory(const Exec&) {}
GraphMemory& GraphMemory::of(const Exec&) { fail(kMissing); }
void GraphMemory::plan(const MemoryNeeds&) { fail(kMissing); }
void MemoryNeeds::watch(const std::function<void()>&) { fail(kMissing); }
struct StreamGraph::Arena {};
StreamGraph::StreamGraph(const Exec& exec) : exec_(exec) { fail(kMissing); }
StreamGraph::~StreamGraph() = default;
void StreamGraph::record(const std::function<void()>&) { fail(kMissing); }
void StreamGraph::launch() { fail(kMissing); }
StreamClock::StreamClock(const Exec&) : events_() { fail(kMissing); }
StreamClock::~StreamClock() = default;
void StreamClock::start() {}
void StreamClock::stop() {}
double StreamClock::seconds() const { return 0; }
void copy_to_device(const Exec&, void*, const void*, int64_t) { fail(kMissing); }
void copy_to_host(const Exec&, void*, const void*, int64_t) { fail(kMissing); }
void copy_on_device(const Exec&, void*, const void*, int64_t) { fail(kMissing); }
void fill_zero(const Exec&, void*, int64_t) { fail(kMissing); }
void copy_strided(const Exec&, const StridedCopy&) { fail(kMissing); }
int64_t scan_segments(const Exec&, int64_t, int64_t, int64_t) { fail(kMissing); }
void attention_ranges(const Exec&, const AttentionRanges&) { fail(kMissing); }

}  // namespace blockstate::kernels::cuda
