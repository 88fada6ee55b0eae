# Formats x kernels: the tool generates, compiles and verifies every variant of a list of problems.
qn_test(kernels quernel_static)
add_dependencies(test_kernels quernel_tool quernel-worker)
# The CUDA families' cubins.
qn_test(sass quernel_compile PkgConfig::CJSON)
add_dependencies(test_sass quernel_tool quernel-worker)
