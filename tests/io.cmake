qn_test(io quernel_io)
set_tests_properties(io PROPERTIES LABELS sanitize)
