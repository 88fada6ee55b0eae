# The PTX interpreter: samples, seeded bugs, bad input, single instructions, matrix products, async copies, hazards.
foreach(unit emu emu_ops emu_mma emu_async emu_hazards)
  qn_test(${unit} quernel_emu quernel_status)
  set_tests_properties(${unit} PROPERTIES LABELS sanitize)
endforeach()
set_tests_properties(emu PROPERTIES LABELS "sanitize;threads") # CTAs over several workers
target_sources(test_emu PRIVATE emu_samples.c)
target_link_options(test_emu PRIVATE -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc) # that fail
foreach(unit emu_ops emu_mma emu_async emu_hazards)
  target_sources(test_${unit} PRIVATE emu_fixture.c)
endforeach()
# A build without it: the worker needs nothing of the interpreter that absent.c does not have, else this does not link.
add_executable(worker_without_emu ../tuner/worker_main.c ../runtime/emu/absent.c)
target_link_libraries(worker_without_emu PRIVATE quernel_tuner)
add_test(NAME emu_absent COMMAND worker_without_emu emu:sm_80)
set_tests_properties(emu_absent PROPERTIES PASS_REGULAR_EXPRESSION "this build has no interpreter of PTX")
# Samples compiled by NVRTC, where there is one; not under sanitizers, which NVRTC is not made for.
qn_test(emu_sources quernel_emu quernel_compile)
target_sources(test_emu_sources PRIVATE emu_samples.c emu_fixture.c)
add_executable(emu_bench emu_bench.c emu_samples.c)
target_link_libraries(emu_bench PRIVATE quernel_emu quernel_status)
target_compile_definitions(emu_bench PRIVATE QN_TESTS="${CMAKE_CURRENT_SOURCE_DIR}")
