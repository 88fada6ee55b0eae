# What a quantization costs and buys.
qn_test(score quernel_eval)
set_tests_properties(score PROPERTIES LABELS sanitize)
