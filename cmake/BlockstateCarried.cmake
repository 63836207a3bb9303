# SPDX-License-Identifier: Apache-2.0
# Finds the libraries that the core stands on in one folder that was carried here (scripts/carry), for a machine that has
# CUDA and a compiler and no packages: no pkg-config is asked, nothing of the system is looked at.

function(_blockstate_carried target header library)
  find_path(${target}_INCLUDE ${header} PATHS ${BLOCKSTATE_CARRIED}/include NO_DEFAULT_PATH REQUIRED)
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${${target}_INCLUDE})
  if(library)
    find_library(${target}_LIBRARY NAMES ${library} PATHS ${BLOCKSTATE_CARRIED}/lib NO_DEFAULT_PATH REQUIRED)
    set_target_properties(${target} PROPERTIES INTERFACE_LINK_LIBRARIES ${${target}_LIBRARY})
  endif()
endfunction()

get_filename_component(BLOCKSTATE_CARRIED ${BLOCKSTATE_CARRIED} ABSOLUTE BASE_DIR ${PROJECT_SOURCE_DIR})
_blockstate_carried(Eigen3::Eigen Eigen/Dense "")
_blockstate_carried(nlohmann_json::nlohmann_json nlohmann/json.hpp "")
_blockstate_carried(ZLIB::ZLIB zlib.h libz.so.1)
_blockstate_carried(PkgConfig::hwy hwy/highway.h libhwy.so.1)
target_compile_definitions(PkgConfig::hwy INTERFACE HWY_SHARED_DEFINE)
_blockstate_carried(PkgConfig::tomlplusplus toml++/toml.h libtomlplusplus.so.3)
target_compile_definitions(PkgConfig::tomlplusplus INTERFACE TOML_HEADER_ONLY=0 TOML_SHARED_LIB=1)
_blockstate_carried(blockstate_openblas cblas.h libopenblas.so.0)
# Libraries that these need lie beside them.
add_link_options(-Wl,-rpath,${BLOCKSTATE_CARRIED}/lib -Wl,-rpath-link,${BLOCKSTATE_CARRIED}/lib -Wl,--disable-new-dtags)
if(BLOCKSTATE_TESTS)
  _blockstate_carried(Catch2::Catch2 catch2/catch.hpp "")
  list(APPEND CMAKE_MODULE_PATH ${BLOCKSTATE_CARRIED}/cmake)
  include(Catch)
endif()
