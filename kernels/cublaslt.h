// SPDX-License-Identifier: Apache-2.0
// cuBLASLt, found when the first product on a GPU is asked for: the program starts without it on machines that have no
// GPU, and its 500 MB need not travel with it.
#pragma once

#include <cublasLt.h>

namespace blockstate::kernels::cuda {

/// The functions in use, under cuBLASLt's own names.
struct CublasLt {
#define BLOCKSTATE_CUBLASLT_FUNCTIONS(X)  \
  X(cublasLtCreate)                       \
  X(cublasLtGetStatusString)              \
  X(cublasLtMatmul)                       \
  X(cublasLtMatmulAlgoGetHeuristic)       \
  X(cublasLtMatmulDescCreate)             \
  X(cublasLtMatmulDescSetAttribute)       \
  X(cublasLtMatmulPreferenceCreate)       \
  X(cublasLtMatmulPreferenceDestroy)      \
  X(cublasLtMatmulPreferenceSetAttribute) \
  X(cublasLtMatrixLayoutCreate)
#define BLOCKSTATE_MEMBER(name) decltype(&::name) name;
  BLOCKSTATE_CUBLASLT_FUNCTIONS(BLOCKSTATE_MEMBER)
#undef BLOCKSTATE_MEMBER
};

/// Loads the library at the first call: from where the system looks, then from the places CUDA installs to. Error that
/// says what to install where it is missing.
const CublasLt& cublaslt();

}  // namespace blockstate::kernels::cuda
