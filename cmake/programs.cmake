file(GLOB cli_sources CONFIGURE_DEPENDS host/cli/*.c)
add_executable(mica_program ${cli_sources})
set_target_properties(mica_program PROPERTIES OUTPUT_NAME mica ENABLE_EXPORTS ON) # plugins find the public symbols here
target_link_libraries(mica_program PRIVATE mica_internal)

if(MICA_BENCH)
  # the checks come along: no speed on a red gate
  file(GLOB bench_sources CONFIGURE_DEPENDS bench/bench_ops*.c tests/check_ops_*.c)
  file(GLOB device_sources CONFIGURE_DEPENDS host/device/*.c)
  add_executable(bench_ops ${bench_sources} ${device_sources} ${room_objects})
  target_link_libraries(bench_ops PRIVATE mica_flags ${mica_links})
  if(MICA_CUDA STREQUAL "ON")  # a GPU has a speed, what stands in for it has none
    set(kept ${cuda_objects})
    set(cuda_objects "")
    mica_nvcc(${PROJECT_SOURCE_DIR}/bench/bench_peak_cuda.cu)
    target_sources(bench_ops PRIVATE ${cuda_objects})
    target_compile_definitions(bench_ops PRIVATE MICA_BENCH_GPU)
    set(cuda_objects ${kept})
  endif()
  add_executable(bench_train bench/bench_train.c)
  target_link_libraries(bench_train PRIVATE mica_internal)
  add_executable(bench_op bench/bench_op.c host/cli/op_run.c)
  target_link_libraries(bench_op PRIVATE mica_internal)
endif()
