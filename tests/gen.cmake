# The generator's Lua: its own cases, and the golden sources.
add_test(NAME gen COMMAND test_lua gen)
set_tests_properties(gen PROPERTIES TIMEOUT 1500)
# Every format in every layout of the kernel families.
qn_test(round_trip quernel_cache quernel_problem PkgConfig::LUA)
