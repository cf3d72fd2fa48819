# MICA_CUDA=SIMT: the C++ compiler takes the .cu files with a forced include, tests/simt stands in for CUDA's libraries.
# the kernels get the thread sanitizer's instrumentation, whose callbacks are those of the race detector in tests/simt:
# its runtime is not linked. with MICA_SANITIZE or MICA_COVERAGE they get that instead (coverage: they alone).
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  message(FATAL_ERROR "MICA_CUDA=SIMT: its context switch is written for x86-64")
endif()
enable_language(CXX)
set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_C_COMPILER_LAUNCHER})
file(GLOB simt_sources CONFIGURE_DEPENDS tests/simt/*.cpp)
set(simt_kernels ${cuda_sources})
list(FILTER simt_kernels EXCLUDE REGEX "_sm90")  # left to ptxsim
set(simt_options -std=c++17 -O2 -g1 -mavx2 -mfma -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden -Wall
  -Wno-unknown-pragmas -Wno-maybe-uninitialized)
if(MICA_WERROR)
  list(APPEND simt_options -Werror)
endif()
set(simt_race 0)
set(simt_asan 0)
if(MICA_SANITIZE MATCHES "address")
  set(simt_asan 1)
  set(simt_instrument -fsanitize=${MICA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
elseif(MICA_COVERAGE)
  set(simt_instrument --coverage -O0)
  set(simt_links gcov)
elseif(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(simt_race 1)
  set(simt_instrument -fsanitize=thread --param tsan-instrument-func-entry-exit=0)
endif()
add_library(mica_simt OBJECT ${simt_sources})
target_compile_options(mica_simt PRIVATE ${simt_options} -Wextra)
target_compile_definitions(mica_simt PRIVATE SIMT_RACE=${simt_race}
  SIMT_ASAN=${simt_asan})
target_include_directories(mica_simt SYSTEM PRIVATE ${MICA_CUDA_INCLUDE})

add_library(mica_simt_kernels OBJECT ${simt_kernels})
set_source_files_properties(${simt_kernels} PROPERTIES LANGUAGE CXX
  OBJECT_DEPENDS "${PROJECT_SOURCE_DIR}/tests/simt/simt.h;${PROJECT_SOURCE_DIR}/tests/simt/simt_math.h")
target_compile_options(mica_simt_kernels PRIVATE -x c++ ${simt_options} ${simt_instrument}
  -include ${PROJECT_SOURCE_DIR}/tests/simt/simt.h)
target_compile_definitions(mica_simt_kernels PRIVATE MICA_HAVE_CUDA _GNU_SOURCE)
target_include_directories(mica_simt_kernels PRIVATE include . kernels host)
target_include_directories(mica_simt_kernels SYSTEM PRIVATE ${MICA_CUDA_INCLUDE})
set(cuda_objects $<TARGET_OBJECTS:mica_simt> $<TARGET_OBJECTS:mica_simt_kernels>)
set(cuda_links stdc++ ${simt_links})
