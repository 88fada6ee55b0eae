# The package of python/, with the libraries and the tool of this build. Where a package that its tests need is missing,
# they are skipped and say so.
if(NOT CMAKE_CROSSCOMPILING AND NOT QUERNEL_SANITIZE)
  add_test(NAME python COMMAND ${PROJECT_SOURCE_DIR}/python/tests/run ${CMAKE_BINARY_DIR})
  set_tests_properties(python PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT ${timeout})
endif()
