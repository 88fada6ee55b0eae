# The commands, scripts and programs of README.md, CONTRIBUTING.md and docs/.
qn_test(docs)
target_compile_definitions(test_docs PRIVATE QN_SOURCE="${PROJECT_SOURCE_DIR}")
add_dependencies(test_docs quernel_tool quernel-worker quernel_module quernel quernel-io example-overhead
                 example-generate ptxrun)
