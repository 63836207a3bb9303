// SPDX-License-Identifier: Apache-2.0
// The parts of the page, as they lie in page/ and in the system's Chart.js.
#pragma once

#include <string_view>

namespace blockstate::apps {

extern const std::string_view kChartJs;
extern const std::string_view kChartJsLicense;
extern const std::string_view kPageHtml;
extern const std::string_view kPageCss;
extern const std::string_view kPageJs;

}  // namespace blockstate::apps
