// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "apps/report/compare_report.h"

namespace blockstate::apps {

/// Text as it may stand in an element or a quoted attribute. Control characters, which HTML does not allow, become
/// U+FFFD; so do bytes that are not UTF-8.
std::string escape_html(std::string_view text);

/// The table of variants, with a bar for the metric's range over seeds.
std::string html_variants(const Comparison& comparison);
/// The table of single runs.
std::string html_runs(const Comparison& comparison);

}  // namespace blockstate::apps
