// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace blockstate {

/// The process has one pool of worker threads; this is its only door.
///
/// Calls body(begin, end) over disjoint pieces of [0, count), each at most `grain` long, on the pool and the
/// calling thread; returns when all are done. Pieces are [k*grain, (k+1)*grain) whatever the thread count, so a
/// body whose result depends only on its piece gives the same bits on 1 thread and on 64. A call from inside a
/// body runs on the spot. The first exception thrown by a body is rethrown here after all pieces have ended.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

/// Threads used by parallel_for, the caller included. Starts as the CPUs this process may run on.
int thread_count();
/// Resizes the pool; not to be called while a parallel_for runs. Error if `threads` < 1.
void set_thread_count(int threads);

}  // namespace blockstate
