/* format_list.h - every format, in spellings that cover grains and types of planes: the one list that the tests of
 * kernels and of layouts go through. test_kernels fails if a registered format is not in it. */
#ifndef FORMAT_LIST_H
#define FORMAT_LIST_H

/* X(spelling, why not with f32, bf16 (or e4m3), i8 activations on the host; NULL: taken) */
#define NO_INTEGERS "codes that mean integers"
#define ONE_GROUP "all of them must be of one group"
#define PRECISION "keep their precision"
#define FORMAT_LIST(X)                                                                                                 \
  X("int1.g64.zf.bf16", NULL, NULL, NULL)                                                                              \
  X("int2.g16.zf32.f32", NULL, NULL, NULL)                                                                             \
  X("int2.row.z", NULL, NULL, NULL)                                                                                    \
  X("int3.g16.f32", NULL, NULL, NULL) /* groups shorter than a block of vectors */                                     \
  X("int3.g128.z", NULL, NULL, NULL)                                                                                   \
  X("int4.g128", NULL, NULL, NULL)                                                                                     \
  X("int4.g64.z", NULL, NULL, NULL)                                                                                    \
  X("int4.g32.m", NULL, NULL, NULL)                                                                                    \
  X("int4.g20.zf", NULL, NULL, NULL) /* groups that are no power of two */                                             \
  X("int4.g512.bf16", NULL, NULL, NULL)                                                                                \
  X("int5.g32", NULL, NULL, NULL)                                                                                      \
  X("int5.g64.m.bf16", NULL, NULL, NULL)                                                                               \
  X("int6.g16.f32", NULL, NULL, NULL)                                                                                  \
  X("int7.g128.z", NULL, NULL, NULL)                                                                                   \
  X("int8.g32", NULL, NULL, NULL)                                                                                      \
  X("int8.row.f32", NULL, NULL, NULL)                                                                                  \
  X("int8.tensor.z.bf16", NULL, NULL, NULL)                                                                            \
  X("nf4.g64.f32", NULL, NULL, NO_INTEGERS)                                                                            \
  X("iq4_nl.g32.f32", NULL, NULL, NULL)                                                                                \
  X("fp4.g64.f32", NULL, NULL, NO_INTEGERS)                                                                            \
  X("iq1.g16", NULL, NULL, NULL)                                                                                       \
  X("iq2.g16", NULL, NULL, NULL)                                                                                       \
  X("iq3_xxs", NULL, NULL, NULL)                                                                                       \
  X("iq3_s", NULL, NULL, NULL)                                                                                         \
  X("ternary.g256", NULL, NULL, NULL)                                                                                  \
  X("ternary.tensor.f32", NULL, NULL, NULL)                                                                            \
  X("e4m3.b128x128.bf16", NULL, NULL, NO_INTEGERS)                                                                     \
  X("e4m3.row.f32", NULL, NULL, NO_INTEGERS)                                                                           \
  X("e5m2.b2x4", NULL, NULL, NO_INTEGERS)                                                                              \
  X("mxfp8", NULL, NULL, NO_INTEGERS)                                                                                  \
  X("mxfp4", NULL, NULL, NULL)                                                                                         \
  X("mxfp8_e5m2", NULL, NULL, NO_INTEGERS)                                                                             \
  X("nvfp4", NULL, NULL, NULL)                                                                                         \
  X("q2_k", NULL, NULL, NULL)                                                                                          \
  X("q3_k", NULL, NULL, NULL)                                                                                          \
  X("q4_k", NULL, NULL, NULL)                                                                                          \
  X("q6_k", NULL, NULL, NULL)                                                                                          \
  X("iq4_xs", NULL, NULL, NULL)                                                                                        \
  X("q5_k", NULL, NULL, NULL)                                                                                          \
  X("qserve.g128", NULL, NULL, NULL)                                                                                   \
  X("int4.g1.zf", NULL, ONE_GROUP, ONE_GROUP)                                                                          \
  X("f32", NULL, PRECISION, NO_INTEGERS)                                                                               \
  X("f16", NULL, PRECISION, NO_INTEGERS)                                                                               \
  X("bf16", NULL, NULL, NO_INTEGERS)
#endif
