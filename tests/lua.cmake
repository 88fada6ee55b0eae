add_library(ffi_library MODULE lua/library.c)
target_include_directories(ffi_library PRIVATE ${PROJECT_SOURCE_DIR}/runtime)
set_target_properties(ffi_library PROPERTIES PREFIX "" OUTPUT_NAME ffi_library)

qn_test(lua quernel_lua quernel_tuner quernel_eval PkgConfig::LUA PkgConfig::FFI)
target_compile_definitions(test_lua PRIVATE QN_LIBRARY="$<TARGET_FILE:ffi_library>")
add_dependencies(test_lua ffi_library quernel-worker quernel_module)
add_test(NAME mixed COMMAND test_lua mixed)
set_tests_properties(lua mixed PROPERTIES ENVIRONMENT "QUERNEL_WORKER=$<TARGET_FILE:quernel-worker>")

qn_test(reports PkgConfig::CJSON)
add_dependencies(test_reports quernel_tool quernel-worker)

qn_test(cli quernel_cache)
target_compile_definitions(test_cli PRIVATE QN_TOOL="$<TARGET_FILE:quernel_tool>")
add_dependencies(test_cli quernel_tool quernel-worker)
