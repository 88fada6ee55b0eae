qn_test(compile quernel_compile)
qn_test(cubin quernel_compile)
qn_test(store quernel_cache)
