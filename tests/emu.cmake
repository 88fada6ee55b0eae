# The PTX interpreter: samples, seeded bugs, bad input, fuzzing.
qn_test(emu quernel_emu quernel_status)
target_sources(test_emu PRIVATE emu_samples.c)
