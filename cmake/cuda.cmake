# the CUDA backend: MICA_CUDA says how the .cu files of the rooms are built and what runs them
#   OFF      not built
#   ON       nvcc and CUDA's libraries: a GPU runs them
#   PTXSIM   nvcc; ptxsim runs the PTX on the CPU, in place of CUDA's libraries
#   SIMT     the C++ compiler; tests/simt runs the sources on the CPU (needs CUDA's headers only)
set(MICA_HAVE_CUDA OFF)
set(MICA_CUDA_ARCHITECTURES "80;90a" CACHE STRING "what nvcc compiles for; one alone is a quarter of the size")
set(MICA_PTXSIM_DIR "" CACHE PATH "sources of ptxsim (MICA_CUDA=PTXSIM); else beside this project in shared/tools/ptxsim")
set(cuda_objects "")
set(cuda_links "")
if(MICA_CUDA STREQUAL "OFF")
  return()
endif()
if(NOT MICA_CUDA MATCHES "^(ON|SIMT|PTXSIM)$")
  message(FATAL_ERROR "MICA_CUDA is '${MICA_CUDA}', expected OFF, ON, SIMT or PTXSIM")
endif()
set(MICA_HAVE_CUDA ON)

file(GLOB cuda_sources CONFIGURE_DEPENDS kernels/*/*_cuda*.cu)
set(cuda_defines "")
if(NOT "90a" IN_LIST MICA_CUDA_ARCHITECTURES)
  list(FILTER cuda_sources EXCLUDE REGEX "_sm90")
  set(cuda_defines -DMICA_CUDA_NO_SM90)
endif()
file(GLOB cuda_headers CONFIGURE_DEPENDS kernels/*/*.cuh)

# ---- what compiles ----
find_program(MICA_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_PATH PATH_SUFFIXES bin)
if(NOT MICA_CUDA STREQUAL "SIMT" AND NOT MICA_NVCC)
  message(FATAL_ERROR "MICA_CUDA=${MICA_CUDA} needs nvcc, and none was found: install a CUDA toolkit, or set MICA_CUDA=OFF")
endif()
get_filename_component(cuda_bin "${MICA_NVCC}" REALPATH)
get_filename_component(cuda_bin "${cuda_bin}" DIRECTORY)
find_path(MICA_CUDA_INCLUDE cuda_runtime.h HINTS ${cuda_bin}/../include /usr/local/cuda/include
  ${PROJECT_SOURCE_DIR}/build/cuda-headers/nvidia/cu13/include)
if(NOT MICA_CUDA_INCLUDE)
  message(FATAL_ERROR "MICA_CUDA=${MICA_CUDA} needs CUDA's headers, and cuda_runtime.h was not found: set MICA_CUDA_INCLUDE")
endif()
target_compile_definitions(mica_flags INTERFACE MICA_HAVE_CUDA)
target_include_directories(mica_flags SYSTEM INTERFACE $<BUILD_INTERFACE:${MICA_CUDA_INCLUDE}>)

function(mica_nvcc source)                       # an object of one .cu, appended to cuda_objects
  file(RELATIVE_PATH name ${PROJECT_SOURCE_DIR} ${source})
  set(object ${PROJECT_BINARY_DIR}/cuda/${name}.o)
  get_filename_component(folder ${object} DIRECTORY)
  file(MAKE_DIRECTORY ${folder})
  set(code "")
  foreach(arch ${MICA_CUDA_ARCHITECTURES})
    if(NOT name MATCHES "_sm90" OR arch STREQUAL "90a")
      list(APPEND code -gencode arch=compute_${arch},code=[sm_${arch},compute_${arch}])
    endif()
  endforeach()
  set(host -fPIC,-fvisibility=hidden)
  if(MICA_SANITIZE)
    string(APPEND host ",-fsanitize=${MICA_SANITIZE},-fno-sanitize-recover=all")
  endif()
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${MICA_NVCC} -std=c++17 -O3 -lineinfo ${code} -Werror all-warnings
      -DMICA_HAVE_CUDA ${cuda_defines} -I${PROJECT_SOURCE_DIR}/include -I${PROJECT_SOURCE_DIR} -I${PROJECT_SOURCE_DIR}/kernels
      -I${PROJECT_SOURCE_DIR}/host -Xcompiler ${host} -MD -MF ${object}.d -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}" VERBATIM)
  set(cuda_objects ${cuda_objects} ${object} PARENT_SCOPE)
endfunction()

# ---- what runs ----
if(MICA_CUDA STREQUAL "SIMT")
  include(cmake/simt.cmake)
else()
  foreach(source ${cuda_sources})
    mica_nvcc(${source})
  endforeach()
endif()
if(MICA_CUDA STREQUAL "ON")
  find_package(CUDAToolkit REQUIRED)
  set(cuda_links CUDA::cudart CUDA::cublas CUDA::cublasLt stdc++)
elseif(MICA_CUDA STREQUAL "PTXSIM")
  if(NOT MICA_PTXSIM_DIR)
    find_path(MICA_PTXSIM_FOUND src/ptx.h NO_DEFAULT_PATH
      PATHS ${PROJECT_SOURCE_DIR}/../shared/tools/ptxsim ${PROJECT_SOURCE_DIR}/../../shared/tools/ptxsim)
    set(ptxsim ${MICA_PTXSIM_FOUND})
  else()
    set(ptxsim ${MICA_PTXSIM_DIR})
  endif()
  if(NOT EXISTS "${ptxsim}/src/ptx.h")
    message(FATAL_ERROR "MICA_CUDA=PTXSIM: skipped, no ptxsim in ../shared/tools/ptxsim: set MICA_PTXSIM_DIR to its sources")
  endif()
  find_program(MICA_MAKE NAMES gmake make REQUIRED)
  file(GLOB ptxsim_sources CONFIGURE_DEPENDS ${ptxsim}/src/* ${ptxsim}/Makefile)
  set(ptxsim_library ${PROJECT_BINARY_DIR}/ptxsim/libptxsim.a)
  get_filename_component(cuda_root ${MICA_CUDA_INCLUDE} DIRECTORY)
  add_custom_command(OUTPUT ${ptxsim_library}
    COMMAND ${MICA_MAKE} -C ${ptxsim} -j2 B=${PROJECT_BINARY_DIR}/ptxsim "CXX=${CMAKE_C_COMPILER_LAUNCHER} g++"
      CUDA=${cuda_root}/ >${PROJECT_BINARY_DIR}/ptxsim.log 2>&1
    DEPENDS ${ptxsim_sources} COMMENT "ptxsim")
  set(cuda_links ${ptxsim_library} stdc++)
endif()
# a program of one .cu in tests/
function(mica_cuda_program name source)
  if(MICA_CUDA STREQUAL "SIMT")
    set_source_files_properties(${source} PROPERTIES LANGUAGE CXX OBJECT_DEPENDS
      "${PROJECT_SOURCE_DIR}/tests/simt/simt.h;${PROJECT_SOURCE_DIR}/tests/simt/simt_math.h")
    add_executable(${name} ${source} ${PROJECT_SOURCE_DIR}/kernels/common/status.c $<TARGET_OBJECTS:mica_simt>)
    get_target_property(options mica_simt_kernels COMPILE_OPTIONS)
    target_compile_options(${name} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${options}>")
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/kernels)
    target_include_directories(${name} SYSTEM PRIVATE ${MICA_CUDA_INCLUDE})
    if(MICA_SANITIZE)
      target_link_options(${name} PRIVATE -fsanitize=${MICA_SANITIZE})
    endif()
  else()
    set(cuda_objects "")
    mica_nvcc(${CMAKE_CURRENT_SOURCE_DIR}/${source})
    add_executable(${name} ${cuda_objects} ${PROJECT_SOURCE_DIR}/kernels/common/status.c)
    set_target_properties(${name} PROPERTIES LINKER_LANGUAGE C)
  endif()
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${mica_links})
endfunction()
# a target, so that several programs do not each run the commands at the same time; it is red when a kernel takes more
# registers or shared memory than its budget, or spills
if(NOT MICA_CUDA STREQUAL "SIMT")
  set(cuda_budget "")
  if(MICA_TESTS)
    find_program(PYTHON3 python3 REQUIRED)
    set(cuda_budget ${PROJECT_BINARY_DIR}/cuda/budget.txt)
    set(budget ${PROJECT_SOURCE_DIR}/tests/simt/budget)
    add_custom_command(OUTPUT ${cuda_budget}
      COMMAND ${PYTHON3} -B ${budget}.py --build ${PROJECT_BINARY_DIR} --to ${cuda_budget}
      DEPENDS ${cuda_objects} ${budget}.py ${budget}.tsv COMMENT "registers, shared memory, spills, instructions" VERBATIM)
  endif()
  add_custom_target(mica_cuda ALL DEPENDS ${cuda_objects} ${ptxsim_library} ${cuda_budget})
endif()
