# What a quantization costs and buys.
foreach(unit score task arch)
  qn_test(${unit} quernel_eval)
  set_tests_properties(${unit} PROPERTIES LABELS sanitize)
endforeach()
qn_test(decoder quernel_eval quernel_cache quernel_problem PkgConfig::LUA)
set_tests_properties(decoder PROPERTIES LABELS sanitize)
