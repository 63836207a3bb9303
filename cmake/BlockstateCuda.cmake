# SPDX-License-Identifier: Apache-2.0
# The CUDA compiler and the GPUs that code is made for: this machine's where one answers ("native" fails without), else
# those that blockstate is tuned for and what a newer one can translate.

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE found RESULT_VARIABLE status ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(status EQUAL 0 AND found MATCHES "^9\\.0")
    set(architectures 90a-real)  # "native" would leave out Hopper's own instructions
  elseif(status EQUAL 0 AND found MATCHES "^[0-9]+\\.[0-9]+")
    set(architectures native)
  else()
    set(architectures 80-real 90a-real 120-virtual)
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${architectures} CACHE STRING "GPUs that CUDA code is made for")
endif()
if(NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(BLOCKSTATE_NVCC nvcc PATHS /usr/local/cuda/bin ENV CUDA_HOME PATH_SUFFIXES bin)
  if(BLOCKSTATE_NVCC)
    set(CMAKE_CUDA_COMPILER ${BLOCKSTATE_NVCC})
  endif()
endif()
enable_language(CUDA)
find_package(CUDAToolkit 12 REQUIRED)
message(STATUS "blockstate: CUDA ${CUDAToolkit_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
