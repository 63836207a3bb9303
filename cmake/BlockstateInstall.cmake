# SPDX-License-Identifier: Apache-2.0
# cmake --install: the program, and for C++ users the libraries below it, their headers and a package that
# find_package(blockstate) finds. tests/consumer is such a user.
include(CMakePackageConfigHelpers)

set(blockstate_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/blockstate)

# What the program is made of stays out: only rooms below apps/ have headers for others.
get_property(libraries GLOBAL PROPERTY BLOCKSTATE_LIBRARIES)
set(exported)
foreach(library IN LISTS libraries)
  get_target_property(folder ${library} SOURCE_DIR)
  cmake_path(RELATIVE_PATH folder BASE_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT folder MATCHES "^apps(/|$)")
    list(APPEND exported ${library})
  endif()
endforeach()
install(TARGETS ${exported} EXPORT blockstate-targets)
install(EXPORT blockstate-targets NAMESPACE blockstate:: DESTINATION ${blockstate_package_dir})

set(rooms core kernels)
if(BLOCKSTATE_AUDIO)
  list(APPEND rooms audio)
endif()
if(BLOCKSTATE_GENOMICS)
  list(APPEND rooms genomics)
endif()
# The -inl.h files are Highway code that is compiled once for each instruction set: no use without ours.
install(DIRECTORY ${rooms} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/blockstate
  FILES_MATCHING PATTERN "*.h" PATTERN "*-inl.h" EXCLUDE)

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/blockstate-config.cmake.in
  ${PROJECT_BINARY_DIR}/blockstate-config.cmake INSTALL_DESTINATION ${blockstate_package_dir})
# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/blockstate-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/blockstate-config.cmake ${PROJECT_BINARY_DIR}/blockstate-config-version.cmake
  DESTINATION ${blockstate_package_dir})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
