// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace blockstate::genomics {

/// Why `index` cannot be the block index (.gzi) of the bgzip file `packed`; empty if it fits. htslib believes a block
/// index and stops the whole program where it is wrong, so it is compared beforehand: its form, and for up to 4096
/// blocks spread over the file (all, up to about 256 MB unpacked) their place and size.
std::string block_index_problem(const std::string& packed, const std::string& index);

}  // namespace blockstate::genomics
