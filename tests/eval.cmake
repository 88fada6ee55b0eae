# What a quantization costs and buys.
foreach(unit score task arch)
  qn_test(${unit} quernel_eval)
  set_tests_properties(${unit} PROPERTIES LABELS sanitize)
endforeach()
