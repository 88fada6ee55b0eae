# Checkpoint readers.
foreach(unit io io_damage io_model io_open io_weights io_gguf io_ggml io_gptq io_ct io_layers encode format_vectors)
  qn_test(${unit} quernel_io)
endforeach()
qn_test(quantize quernel_eval)
foreach(unit io io_ggml io_gptq io_ct io_layers encode format_vectors quantize)
  target_sources(test_${unit} PRIVATE io_decode.c)
  target_link_libraries(test_${unit} PRIVATE quernel_cache quernel_problem quernel_reference PkgConfig::LUA)
endforeach()
target_sources(test_io_damage PRIVATE io_fit.c io_touch.c vector_files.c)
target_sources(test_format_vectors PRIVATE vector_files.c)
target_sources(test_quantize PRIVATE io_format.c)
set_tests_properties(io io_damage io_model io_open io_weights io_gguf io_ggml io_gptq io_ct io_layers encode format_vectors
                     quantize PROPERTIES LABELS sanitize)
