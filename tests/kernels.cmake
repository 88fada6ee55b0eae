# Formats x kernels: the tool generates, compiles and verifies every variant of a list of problems.
qn_test(kernels)
add_dependencies(test_kernels quernel_tool quernel-worker)
