# ops.def is the one list of operations: MICA_OP(name, room)
file(STRINGS kernels/ops.def op_lines REGEX "^MICA_OP\\(")
set(rooms "")
foreach(line ${op_lines})
  string(REGEX REPLACE "^MICA_OP\\([a-z0-9_]+, *([a-z0-9_]+)\\).*" "\\1" room "${line}")
  list(APPEND rooms ${room})
endforeach()
list(REMOVE_DUPLICATES rooms)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS kernels/ops.def)

# the reference has its own flags: no contraction, no fast-math, the same bits at any optimisation
file(GLOB common_sources CONFIGURE_DEPENDS kernels/common/*.c)
set(ref_sources "")
set(cpu_sources "")
set(op_sources ${common_sources})
set(op_headers "")
foreach(room ${rooms} optimizer mlp implicit directions)
  file(GLOB found CONFIGURE_DEPENDS kernels/${room}/*_ref.c)
  list(APPEND ref_sources ${found})
  file(GLOB found CONFIGURE_DEPENDS kernels/${room}/*_cpu*.c)
  list(APPEND cpu_sources ${found})
  file(GLOB found CONFIGURE_DEPENDS kernels/${room}/*_op*.c)
  list(APPEND op_sources ${found})
  file(GLOB found CONFIGURE_DEPENDS kernels/${room}/*.h)
  list(FILTER found EXCLUDE REGEX "_internal\\.h$")
  list(APPEND op_headers ${found})
endforeach()
add_library(mica_ref OBJECT ${ref_sources})
target_link_libraries(mica_ref PRIVATE mica_flags)
target_compile_options(mica_ref PRIVATE -ffp-contract=off -fno-fast-math)
add_library(mica_ops OBJECT ${op_sources})
target_link_libraries(mica_ops PRIVATE mica_flags PkgConfig::CJSON)
target_compile_options(mica_ops PRIVATE -ffp-contract=off)

# each CPU kernel file is compiled once for each instruction set; kernels/common/isa.h picks at run time
set(cpu_objects "")
set(isa_optimise $<$<NOT:$<CONFIG:Debug>>:-O3>)
if(MICA_SANITIZE)
  set(isa_optimise "")  # instrumented code takes minutes a file at -O3
endif()
set(isa_flags_portable "")
set(isa_flags_avx2 -mavx2 -mfma -mf16c)
set(isa_flags_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mprefer-vector-width=512)
set(MICA_ISAS portable)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND MICA_ISAS avx2 avx512)
endif()
foreach(isa ${MICA_ISAS})
  add_library(mica_cpu_${isa} OBJECT ${cpu_sources})
  target_link_libraries(mica_cpu_${isa} PRIVATE mica_flags)
  string(TOUPPER ${isa} upper)
  target_compile_definitions(mica_cpu_${isa} PRIVATE MICAK_ISA=${isa} MICAK_ISA_${upper}=1)
  target_compile_options(mica_cpu_${isa} PRIVATE ${isa_optimise} -ffp-contract=fast ${isa_flags_${isa}})
  list(APPEND cpu_objects $<TARGET_OBJECTS:mica_cpu_${isa}>)
endforeach()

file(GLOB host_sources CONFIGURE_DEPENDS host/device/*.c host/program/*.c host/model/*.c host/adapt/*.c host/task/*.c
  host/io/*.c host/engine/*.c)
add_library(mica_host OBJECT ${host_sources})
target_link_libraries(mica_host PRIVATE mica_flags PkgConfig::YAML PkgConfig::CJSON ${MICA_PUBLISHED})
target_compile_definitions(mica_host PRIVATE $<$<BOOL:${PUBLISHED_FOUND}>:MICA_HAVE_PNG>)
# tasks are drawn and predicted here: the same bits whatever the compiler likes to contract
target_compile_options(mica_host PRIVATE -ffp-contract=off)

# the rooms alone, for the drivers that check them before anything is built on them
set(room_objects $<TARGET_OBJECTS:mica_ops> $<TARGET_OBJECTS:mica_ref> ${cpu_objects} ${cuda_objects})
set(mica_objects ${room_objects} $<TARGET_OBJECTS:mica_host>)
set(mica_links PkgConfig::YAML PkgConfig::CJSON ${MICA_PUBLISHED} ${MICA_GEMM_LIBRARIES} ${cuda_links} Threads::Threads ${CMAKE_DL_LIBS} ${MICA_M})

# the installed library exports the symbols of its public headers and nothing else; the tests and the program link the
# objects themselves, so that they reach internals
add_library(mica SHARED ${mica_objects})
add_library(mica::mica ALIAS mica)
target_include_directories(mica PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(mica PRIVATE mica_flags ${mica_links})
set_target_properties(mica PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
  INTERFACE_COMPILE_FEATURES c_std_99)

add_library(mica_internal INTERFACE)
target_sources(mica_internal INTERFACE ${mica_objects})
target_link_libraries(mica_internal INTERFACE mica_flags ${mica_links})
