// SPDX-License-Identifier: Apache-2.0
#include "kernels/cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "core/base/check.h"

namespace blockstate::kernels::cuda {
namespace {

void* open_library(const std::string& name) {
  std::vector<std::string> places = {name};
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* root = std::getenv(variable)) {
      places.push_back(join(root, "/lib64/", name));
    }
  }
  places.push_back("/usr/local/cuda/lib64/" + name);
  for (const std::string& place : places) {
    if (void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return library;
    }
  }
  return nullptr;
}

CublasLt load() {
  constexpr int kMajor = CUBLAS_VER_MAJOR;
  const std::string name = join("libcublasLt.so.", kMajor);
  void* library = open_library(name);
  require(library != nullptr, "matrix products on a GPU need ", name,
          ", which was not found: install the libraries of ", "CUDA ", kMajor,
          " (package libcublas), add their directory to LD_LIBRARY_PATH, or use device = \"cpu\"");
  CublasLt functions = {};
#define BLOCKSTATE_LOAD(symbol)                                                             \
  functions.symbol = reinterpret_cast<decltype(functions.symbol)>(dlsym(library, #symbol)); \
  require(functions.symbol != nullptr, name, " has no function " #symbol);
  BLOCKSTATE_CUBLASLT_FUNCTIONS(BLOCKSTATE_LOAD)
#undef BLOCKSTATE_LOAD
  return functions;
}

}  // namespace

const CublasLt& cublaslt() {
  static const CublasLt functions = load();
  return functions;
}

}  // namespace blockstate::kernels::cuda
