// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace blockstate::audio {

/// Checks the header of a WAV (RIFF, RIFX, RF64), AIFF or AU file where libsndfile does not. Error: it promises more
/// audio than the file holds (libsndfile reads such a file as if it were complete); its frames are not of the size that
/// channels and bits make (libsndfile guesses, and reads 24 bits in 32 at 1/256 of their level). Sizes that writers to
/// a pipe leave behind (0xFFFFFFFF and the like, which mean "to the end") promise nothing, and neither does a file of
/// another kind: those are for the decoder.
void check_header(const std::string& file);

}  // namespace blockstate::audio
