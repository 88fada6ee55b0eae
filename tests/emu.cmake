# The PTX interpreter: samples, seeded bugs, bad input, fuzzing.
qn_test(emu quernel_emu quernel_status)
qn_test(emu_ops quernel_emu quernel_status)
target_sources(test_emu PRIVATE emu_samples.c)
add_executable(emu_bench emu_bench.c emu_samples.c)
target_link_libraries(emu_bench PRIVATE quernel_emu quernel_status)
target_compile_definitions(emu_bench PRIVATE QN_TESTS="${CMAKE_CURRENT_SOURCE_DIR}")
