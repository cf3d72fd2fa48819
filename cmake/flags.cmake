# one interface target carries the flags of all of mica's own code
add_library(mica_flags INTERFACE)
target_compile_features(mica_flags INTERFACE c_std_11)
target_include_directories(mica_flags INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/kernels>
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/host>)
target_compile_definitions(mica_flags INTERFACE _GNU_SOURCE)
target_compile_options(mica_flags INTERFACE -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -Wpointer-arith -Wundef -Wwrite-strings -fno-math-errno -fno-trapping-math)
if(MICA_WERROR)
  target_compile_options(mica_flags INTERFACE -Werror)
endif()
if(MICA_SANITIZE)
  target_compile_options(mica_flags INTERFACE -fsanitize=${MICA_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(mica_flags INTERFACE -fsanitize=${MICA_SANITIZE})
endif()
if(MICA_COVERAGE AND NOT MICA_CUDA STREQUAL "SIMT")  # there the kernels alone (cmake/simt.cmake)
  target_compile_options(mica_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(mica_flags INTERFACE --coverage)
endif()
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS ON)
