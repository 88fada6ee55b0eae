qn_test(gen quernel_static PkgConfig::LUA PkgConfig::XXHASH)
target_compile_definitions(test_gen PRIVATE QN_SOURCE="${PROJECT_SOURCE_DIR}")
# Every format in every layout of the kernel families.
qn_test(round_trip quernel_cache PkgConfig::LUA)
