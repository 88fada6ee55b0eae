# The GPU's side: conformance of instructions, ceilings. On the interpreter here; tests/gpu/run takes them to a GPU.
add_executable(conformance gpu/conformance.c gpu/forms.c gpu/forms_lane.c gpu/forms_convert.c gpu/forms_warp.c
               gpu/forms_matrix.c gpu/forms_wgmma.c gpu/forms_async.c gpu/numbers.c gpu/vectors.c)
target_link_libraries(conformance PRIVATE quernel_compile quernel_emu quernel_static m)
foreach(arch sm_80 sm_90a sm_120a)
  add_test(NAME conformance_${arch}
           COMMAND conformance --device emu:${arch} --check ${CMAKE_CURRENT_SOURCE_DIR}/gpu/vectors)
endforeach()
add_executable(ceilings gpu/ceilings.c)
target_link_libraries(ceilings PRIVATE quernel_compile quernel_emu quernel_static)
target_compile_definitions(ceilings PRIVATE QN_TESTS="${CMAKE_CURRENT_SOURCE_DIR}")
add_test(NAME ceilings COMMAND ceilings --device emu:sm_90a)
