# Killed tuning runs, continued by the tool.
qn_test(resume)
add_dependencies(test_resume quernel_tool quernel-worker)
