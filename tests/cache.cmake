qn_test(compile quernel_compile)
