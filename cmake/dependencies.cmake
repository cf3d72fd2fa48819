# required: small, everywhere. optional ones are reported in the summary.
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
find_path(MICA_RANDOM123 Random123/philox.h REQUIRED)
find_library(MICA_M m REQUIRED)

set(MICA_HAVE_CUDA OFF)
if(NOT MICA_CUDA STREQUAL "OFF")
  find_package(CUDAToolkit QUIET)
  if(MICA_CUDA STREQUAL "ON" AND NOT CUDAToolkit_FOUND)
    message(FATAL_ERROR "MICA_CUDA=ON but no CUDA toolkit was found: install it, or set MICA_CUDA=OFF")
  endif()
endif()
set(MICA_HAVE_MPI OFF)
