# What a quantization costs and buys.
foreach(unit score task)
  qn_test(${unit} quernel_eval)
  set_tests_properties(${unit} PROPERTIES LABELS sanitize)
endforeach()
foreach(unit decoder arch methods)
  qn_test(${unit} quernel_eval quernel_cache quernel_problem PkgConfig::LUA)
  set_tests_properties(${unit} PROPERTIES LABELS sanitize)
endforeach()
