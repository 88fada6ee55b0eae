# The tuner: its tests compile real candidates with the system's compiler and run the worker program.
qn_test(verify quernel_tuner)
add_dependencies(test_verify quernel-worker)
qn_test(worker quernel_tuner)
add_dependencies(test_worker quernel-worker)
qn_test(journal quernel_tuner)
qn_test(tuner quernel_tuner)
add_dependencies(test_tuner quernel-worker)
