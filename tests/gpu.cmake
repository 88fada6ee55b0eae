# The GPU's side: conformance of instructions, ceilings. Run on the interpreter here; tests/gpu/run takes them to a GPU.
add_executable(conformance gpu/conformance.c gpu/forms.c gpu/forms_lane.c gpu/forms_convert.c gpu/forms_warp.c
               gpu/forms_matrix.c gpu/forms_wgmma.c gpu/forms_async.c gpu/numbers.c gpu/vectors.c)
target_link_libraries(conformance PRIVATE quernel_compile quernel_emu quernel_static m)
add_executable(ceilings gpu/ceilings.c)
target_link_libraries(ceilings PRIVATE quernel_tuner)
target_compile_definitions(ceilings PRIVATE QN_TESTS="${CMAKE_CURRENT_SOURCE_DIR}")

qn_test(gpu)
add_dependencies(test_gpu conformance ceilings quernel_tool quernel-worker)
