# SPDX-License-Identifier: Apache-2.0
# How every library and test of the project is made, so that a folder's CMakeLists.txt is a list.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

# -O3 is for the kernels (kernels/CMakeLists.txt); elsewhere it buys compile time only.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

add_library(blockstate_options INTERFACE)
target_compile_options(blockstate_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wno-unused-parameter -fno-math-errno>
  # g++ 12 sees an overlap in every "text" + std::string (GCC bug 105651).
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<COMPILE_LANGUAGE:CXX>>:-Wno-restrict>
  $<$<AND:$<BOOL:${BLOCKSTATE_WERROR}>,$<COMPILE_LANGUAGE:CXX>>:-Werror>)
if(BLOCKSTATE_SANITIZE)
  # With sanitizers g++ 12 sees uninitialised values in std::regex (in Catch2's main) that are none.
  target_compile_options(blockstate_options INTERFACE
    -fsanitize=${BLOCKSTATE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(blockstate_options INTERFACE -fsanitize=${BLOCKSTATE_SANITIZE})
endif()

# blockstate_add_library(nn
#   SOURCES linear.cc ...            of this folder
#   PUBLIC blockstate::autograd      appears in our headers
#   PRIVATE Eigen3::Eigen            does not
#   NEVER_REACHES data train)        rooms this one must not depend on, even through others (BlockstateLayers.cmake)
function(blockstate_add_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE;NEVER_REACHES" ${ARGN})
  set(target blockstate_${name})
  add_library(${target} STATIC ${ARG_SOURCES})
  add_library(blockstate::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/blockstate>)
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_link_libraries(${target} PUBLIC ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE} $<BUILD_INTERFACE:blockstate_options>)
  set_property(GLOBAL APPEND PROPERTY BLOCKSTATE_LIBRARIES ${target})
  set_property(GLOBAL PROPERTY BLOCKSTATE_${name}_NEVER_REACHES "${ARG_NEVER_REACHES}")
endfunction()

# blockstate_add_test(kernels SOURCES test_gemm.cc ... LINKS blockstate::kernels LABEL cpu)
# One Catch2 executable a folder; each case becomes one CTest test.
function(blockstate_add_test name)
  cmake_parse_arguments(ARG "" "LABEL" "SOURCES;LINKS" ${ARGN})
  set(target test_${name})
  add_executable(${target} ${ARG_SOURCES})
  target_link_libraries(${target} PRIVATE blockstate_test_support ${ARG_LINKS} blockstate_options)
  # Tests are compiled more often than they run: less optimising is the shorter way.
  target_compile_options(${target} PRIVATE $<$<AND:$<CONFIG:Release>,$<COMPILE_LANGUAGE:CXX>>:-O1>)
  if(BLOCKSTATE_SANITIZE)
    # Looking for undefined behaviour in the tests' own code, too, would double their time to compile.
    set_source_files_properties(${ARG_SOURCES} PROPERTIES COMPILE_OPTIONS -fno-sanitize=undefined)
  endif()
  target_compile_definitions(${target} PRIVATE BLOCKSTATE_TEST_DATA="${PROJECT_SOURCE_DIR}/tests")
  catch_discover_tests(${target} TEST_PREFIX "${name}: " PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT 600)
endfunction()
