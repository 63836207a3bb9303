// SPDX-License-Identifier: Apache-2.0
// cuBLASLt counts in columns: a row-major c (M, N) is its column-major (N, M), so c = a b is asked for as c' = b' a'.
#include <array>
#include <map>
#include <mutex>
#include <type_traits>

#include "kernels/copy.h"
#include "kernels/cublaslt.h"
#include "kernels/cuda_support.cuh"
#include "kernels/gemm.h"
#include "kernels/gemm_check.h"
#include "kernels/gemm_few_rows.cuh"
#include "kernels/gemv.cuh"

namespace blockstate::kernels::cuda {
namespace {

constexpr int64_t kWorkspace = 32 << 20;

void check_blas(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    fail("gemm: cuBLASLt failed to ", what, ": ", cublaslt().cublasLtGetStatusString(status));
  }
}

template <class T>
constexpr cudaDataType_t kType = std::is_same_v<T, BFloat16> ? CUDA_R_16BF : CUDA_R_32F;

/// All that the choice of an algorithm may depend on, so that the same product is always made in the same way.
struct Shape {
  int64_t m, n, k, lda, ldb, ldc;
  int device;
  bool transpose_a, transpose_b, accumulate, bias, wide_output, bfloat16;
  int alignment_a, alignment_b, alignment_c;

  auto key() const {
    return std::array<int64_t, 16>{m,        n,           k,           lda,        ldb,  ldc,
                                   device,   transpose_a, transpose_b, accumulate, bias, wide_output,
                                   bfloat16, alignment_a, alignment_b, alignment_c};
  }
};

struct Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace = 0;
};

cublasLtHandle_t handle(int device) {
  static std::mutex mutex;
  static std::map<int, cublasLtHandle_t> handles;
  std::lock_guard lock(mutex);
  cublasLtHandle_t& found = handles[device];
  if (found == nullptr) {
    check_blas(cublaslt().cublasLtCreate(&found), "start");
  }
  return found;
}

int alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const uintptr_t lowest = address & (~address + 1);
  return static_cast<int>(lowest == 0 || lowest > 256 ? 256 : lowest);
}

cublasLtMatrixLayout_t layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t stride) {
  cublasLtMatrixLayout_t made;
  check_blas(cublaslt().cublasLtMatrixLayoutCreate(&made, type, rows, columns, stride), "describe a matrix");
  return made;
}

/// Matrices in cuBLASLt's order: A is our b, B our a.
template <class T, class C>
Plan make_plan(const Shape& shape) {
  Plan plan;
  check_blas(cublaslt().cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
             "describe a product");
  const cublasOperation_t first = shape.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublaslt().cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof(first));
  cublaslt().cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof(second));
  if (shape.bias) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublaslt().cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                              sizeof(epilogue));
  }
  plan.a = layout(kType<T>, shape.transpose_b ? shape.k : shape.n, shape.transpose_b ? shape.n : shape.k, shape.ldb);
  plan.b = layout(kType<T>, shape.transpose_a ? shape.m : shape.k, shape.transpose_a ? shape.k : shape.m, shape.lda);
  plan.c = layout(kType<C>, shape.n, shape.m, shape.ldc);

  cublasLtMatmulPreference_t preference;
  check_blas(cublaslt().cublasLtMatmulPreferenceCreate(&preference), "prepare");
  const uint64_t workspace = kWorkspace;
  // In-place reduction of split sums would add in any order.
  const uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check_blas(cublaslt().cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)),
               "prepare");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(shape.alignment_b));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(shape.alignment_a));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(shape.alignment_c));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(shape.alignment_c));
  cublasLtMatmulHeuristicResult_t result;
  int found = 0;
  // A choice by rules, never by timing.
  const cublasStatus_t status = cublaslt().cublasLtMatmulAlgoGetHeuristic(
      handle(shape.device), plan.operation, plan.a, plan.b, plan.c, plan.c, preference, 1, &result, &found);
  cublaslt().cublasLtMatmulPreferenceDestroy(preference);
  check_blas(status, "choose an algorithm");
  require(found > 0, "gemm: cuBLASLt has no algorithm for (", shape.m, ", ", shape.k, ") times (", shape.k, ", ",
          shape.n, ")");
  plan.algorithm = result.algo;
  plan.workspace = result.workspaceSize;
  return plan;
}

/// Plans are kept for the life of the process: a model has some tens of products.
template <class T, class C>
const Plan& plan_for(const Shape& shape) {
  static std::mutex mutex;
  static std::map<std::array<int64_t, 16>, Plan> plans;
  std::lock_guard lock(mutex);
  const auto key = shape.key();
  const auto found = plans.find(key);
  return found != plans.end() ? found->second : plans.emplace(key, make_plan<T, C>(shape)).first->second;
}

}  // namespace

template <class T, class C>
void gemm(const Exec& exec, const Gemm<T, C, float>& args) {
  const GemmSizes sizes = check_gemm(args);
  Shape shape;
  shape.m = sizes.m;
  shape.n = sizes.n;
  shape.k = sizes.k;
  shape.lda = gemm_row_stride("a", args.a);
  shape.ldb = gemm_row_stride("b", args.b);
  shape.ldc = gemm_row_stride("c", args.c);
  if (shape.m == 0 || shape.n == 0) {
    return;
  }
  require(shape.k > 0, "gemm: a product over no columns");
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (args.transpose_b && !args.transpose_a && args.beta == 0 && has_few_rows(args.a, args.b)) {
      few_rows(exec, "gemm", args.a, args.b, ProductResults<C>{args.c, args.bias, args.alpha});
      return;
    }
  }
  if (serves_gemv(args)) {
    gemv(exec, args);
    return;
  }
  shape.device = exec.device;
  shape.transpose_a = args.transpose_a;
  shape.transpose_b = args.transpose_b;
  shape.accumulate = args.beta != 0;
  shape.bias = static_cast<bool>(args.bias);
  shape.wide_output = std::is_same_v<C, float>;
  shape.bfloat16 = std::is_same_v<T, BFloat16>;
  shape.alignment_a = alignment_of(args.a.data);
  shape.alignment_b = alignment_of(args.b.data);
  shape.alignment_c = alignment_of(args.c.data);
  const Plan& plan = plan_for<T, C>(shape);

  // The epilogue takes the bias in the type of the product.
  Scratch<C> bias(exec, args.bias ? shape.n : 1);
  cublasLtMatmulDesc_t operation = plan.operation;
  if (args.bias) {
    const void* data = args.bias.data;
    if constexpr (std::is_same_v<C, BFloat16>) {
      convert<BFloat16, float>(exec, bias.get(), args.bias.data, shape.n);
      data = bias.get();
    }
    check_blas(
        cublaslt().cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &data, sizeof(data)),
        "take the bias");
  }
  Scratch<std::byte> workspace(exec, static_cast<int64_t>(plan.workspace));
  check_blas(cublaslt().cublasLtMatmul(handle(exec.device), operation, &args.alpha, args.b.data, plan.a, args.a.data,
                                       plan.b, &args.beta, args.c.data, plan.c, args.c.data, plan.c, &plan.algorithm,
                                       workspace.get(), plan.workspace, stream_of(exec)),
             "multiply");
  check_launch(exec, "gemm");
}

template void gemm<float, float>(const Exec&, const Gemm<float, float, float>&);
template void gemm<BFloat16, BFloat16>(const Exec&, const Gemm<BFloat16, BFloat16, float>&);
template void gemm<BFloat16, float>(const Exec&, const Gemm<BFloat16, float, float>&);

}  // namespace blockstate::kernels::cuda
