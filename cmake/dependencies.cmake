# required: small, everywhere. optional ones are reported in the summary.
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
find_path(MICA_RANDOM123 Random123/philox.h REQUIRED)
find_path(MICA_XXHASH xxhash.h REQUIRED)
find_library(MICA_M m REQUIRED)

# Omniglot as published: PNGs in zips
pkg_check_modules(PUBLISHED IMPORTED_TARGET libpng libzip)
set(MICA_PUBLISHED "")
if(PUBLISHED_FOUND)
  set(MICA_PUBLISHED PkgConfig::PUBLISHED)
endif()

set(MICA_HAVE_MPI OFF)
if(NOT MICA_MPI STREQUAL "OFF")
  find_program(MICA_MPICC mpicc)
  if(MICA_MPI STREQUAL "ON" AND NOT MICA_MPICC)
    message(FATAL_ERROR "MICA_MPI=ON but no mpicc was found: install an MPI, or set MICA_MPI=OFF")
  endif()
endif()

# matrix products: the own kernel won or tied every library measured (kernels/linear/README.md)
set(MICA_GEMM_NAME "own kernel (kernels/common/gemm.h)")
set(MICA_GEMM_LIBRARIES "")
