qn_test(expr quernel_static)
qn_test(problem quernel_static)
qn_test(layout quernel_static)
