# SPDX-License-Identifier: Apache-2.0
# cmake --install: the libraries with their headers, as targets blockstate::NAME for find_package(blockstate).
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/blockstate)
set(rooms base config kernels tensor autograd nn model data train)
set(folders core kernels)
if(BLOCKSTATE_AUDIO)
  list(APPEND rooms audio)
  list(APPEND folders audio)
endif()
if(BLOCKSTATE_GENOMICS)
  list(APPEND rooms genomics)
  list(APPEND folders genomics)
endif()
list(TRANSFORM rooms PREPEND blockstate_)

install(TARGETS ${rooms} EXPORT blockstate)
install(EXPORT blockstate NAMESPACE blockstate:: DESTINATION ${package_dir} FILE blockstateTargets.cmake)
install(DIRECTORY ${folders} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/blockstate
  FILES_MATCHING PATTERN "*.h" PATTERN "*-inl.h" EXCLUDE)

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/blockstateConfig.cmake.in
  ${PROJECT_BINARY_DIR}/blockstateConfig.cmake INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO
  NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/blockstateConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/blockstateConfig.cmake ${PROJECT_BINARY_DIR}/blockstateConfigVersion.cmake
  DESTINATION ${package_dir})
