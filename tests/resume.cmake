# Killed tuning runs, continued by the tool.
qn_test(resume quernel_tuner)
add_dependencies(test_resume quernel_tool quernel-worker)
