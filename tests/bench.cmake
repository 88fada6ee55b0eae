# Quernel beside other libraries on this CPU: tests/bench/README.md. The library is what times there; the test has an
# invented one, and invented contenders.
if(NOT QUERNEL_SANITIZE)
  add_library(bench_meter MODULE bench/meter.c)
  target_link_libraries(bench_meter PRIVATE quernel_tuner)
  find_program(PYTHON3 python3 REQUIRED)
  add_test(NAME bench_host COMMAND ${PYTHON3} ${CMAKE_CURRENT_SOURCE_DIR}/bench/test_host.py ${CMAKE_BINARY_DIR})
endif()
