// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "apps/report/compare_report.h"

namespace blockstate::apps {

/// Means over stretches of `width` steps, [k*width+1, (k+1)*width], each placed at its last point: the same steps for
/// all seeds of a variant, so that they can be averaged again. Losses that are not finite make their stretch kUnknown.
std::vector<CurvePoint> thin_out(const std::vector<CurvePoint>& curve, int64_t width);

/// What the page's script draws from, as JSON that may stand inside a <script> element.
std::string page_data(const Comparison& comparison);

}  // namespace blockstate::apps
