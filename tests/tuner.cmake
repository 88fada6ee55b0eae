# The tuner: its tests compile real candidates with the system's compiler and run the worker program.
qn_test(verify quernel_tuner)
add_dependencies(test_verify quernel-worker)
qn_test(worker quernel_tuner)
add_dependencies(test_worker quernel-worker)
qn_test(journal quernel_tuner)
qn_test(tuner quernel_tuner)
add_dependencies(test_tuner quernel-worker)
# Memory that runs out. A sanitizer has an allocator of its own.
if(NOT QUERNEL_SANITIZE)
  qn_test(oom quernel_tuner quernel_eval)
  target_sources(test_oom PRIVATE vector_files.c)
endif()
