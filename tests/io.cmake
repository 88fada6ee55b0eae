# Checkpoint readers.
qn_test(io quernel_io)
qn_test(format_vectors quernel_io)
target_sources(test_io PRIVATE io_decode.c)
target_sources(test_format_vectors PRIVATE io_decode.c)
set_tests_properties(io format_vectors PROPERTIES LABELS sanitize)
