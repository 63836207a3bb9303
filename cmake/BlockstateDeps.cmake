# SPDX-License-Identifier: Apache-2.0
# Finds what the project stands on (README, table of dependencies) and says what it found. Debian 12 names in
# parentheses; scripts/install_dependencies installs them. Nothing is downloaded here.

find_package(Threads REQUIRED)
if(BLOCKSTATE_CARRIED)
  include(BlockstateCarried)
  message(STATUS "blockstate: libraries of ${BLOCKSTATE_CARRIED}, tests ${BLOCKSTATE_TESTS}")
  return()
endif()
find_package(PkgConfig REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)                           # libeigen3-dev
find_package(nlohmann_json REQUIRED)                                  # nlohmann-json3-dev
find_package(ZLIB REQUIRED)                                           # zlib1g-dev
pkg_check_modules(hwy REQUIRED IMPORTED_TARGET libhwy)                # libhwy-dev
pkg_check_modules(tomlplusplus REQUIRED IMPORTED_TARGET tomlplusplus) # libtomlplusplus-dev

# OpenBLAS picks its kernels for the processor at run time. The build with threads is wanted although it is told to use
# one: the sequential build is not safe to call from two threads (docs/decisions/0002-blas.md).
find_library(BLOCKSTATE_OPENBLAS NAMES openblas PATH_SUFFIXES openblas-pthread REQUIRED) # libopenblas-pthread-dev
find_path(BLOCKSTATE_OPENBLAS_INCLUDE NAMES cblas.h PATH_SUFFIXES openblas-pthread openblas REQUIRED)
add_library(blockstate_openblas INTERFACE IMPORTED GLOBAL)
set_target_properties(blockstate_openblas PROPERTIES
  INTERFACE_LINK_LIBRARIES ${BLOCKSTATE_OPENBLAS} INTERFACE_INCLUDE_DIRECTORIES ${BLOCKSTATE_OPENBLAS_INCLUDE})

if(BLOCKSTATE_AUDIO)
  pkg_check_modules(sndfile REQUIRED IMPORTED_TARGET sndfile)         # libsndfile1-dev
  pkg_check_modules(soxr REQUIRED IMPORTED_TARGET soxr)               # libsoxr-dev
endif()
if(BLOCKSTATE_GENOMICS)
  pkg_check_modules(htslib REQUIRED IMPORTED_TARGET htslib)           # libhts-dev
endif()
if(BLOCKSTATE_APPS)
  find_package(CLI11 REQUIRED)                                        # libcli11-dev
endif()
if(BLOCKSTATE_TESTS)
  find_package(Catch2 2.13 REQUIRED)                                  # catch2
  include(Catch)
endif()
if(BLOCKSTATE_BENCH)
  find_package(benchmark REQUIRED)                                    # libbenchmark-dev
endif()

message(STATUS "blockstate: BLAS ${BLOCKSTATE_OPENBLAS}, Highway ${hwy_VERSION}, audio ${BLOCKSTATE_AUDIO}, "
               "genomics ${BLOCKSTATE_GENOMICS}, tests ${BLOCKSTATE_TESTS}, bench ${BLOCKSTATE_BENCH}")
