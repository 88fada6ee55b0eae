# CUDA without a GPU: the families on the PTX interpreter, and the interpreter as a device.
qn_test(cuda)
add_dependencies(test_cuda quernel_tool quernel-worker)
qn_test(grouped_cuda quernel_tuner)
add_dependencies(test_grouped_cuda quernel_tool quernel-worker)
qn_test(emu_driver quernel_tuner)
set_tests_properties(emu_driver PROPERTIES LABELS sanitize)
