install(TARGETS mica EXPORT mica-targets)
if(TARGET mica_program)
  install(TARGETS mica_program)
endif()
install(DIRECTORY include/mica TYPE INCLUDE FILES_MATCHING PATTERN "*.h")
install(FILES ${op_headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/mica/ops)
install(EXPORT mica-targets NAMESPACE mica:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mica)
configure_package_config_file(cmake/mica-config.cmake.in mica-config.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mica)
write_basic_package_version_file(mica-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mica-config.cmake ${PROJECT_BINARY_DIR}/mica-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mica)
# relative: an installed tree may be moved
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/mica.pc.in mica.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/mica.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
