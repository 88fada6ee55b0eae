qn_test(gen PkgConfig::LUA PkgConfig::XXHASH)
target_compile_definitions(test_gen PRIVATE QN_SOURCE="${PROJECT_SOURCE_DIR}")
