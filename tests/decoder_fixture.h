/* decoder_fixture.h - decoders of the checkpoints of tests/models, and the ids of a text. */
#ifndef DECODER_FIXTURE_H
#define DECODER_FIXTURE_H
#include "decoder.h"
#include "fail.h"
#include "generator.h"
#include "suite.h"

#define OK(call) ck_assert_msg((call) == QN_OK, "%s: %s", #call, qn__errmsg())

static inline qn_status format_of(void *ud, const char *spelling, qn_format *out) {
  const char *wrong = generator_format(spelling, out);
  (void)ud;
  return wrong ? qn__fail(QN_E_FORMAT, "%s", wrong) : QN_OK;
}

typedef struct opened {
  qn_model *model;
  qn__decoder *d;
} opened;

static inline opened open_model(const char *name, qn__decoder_options options) {
  opened o;
  char path[512];
  snprintf(path, sizeof path, QN_TESTS "/models/%s", name);
  options.format = format_of;
  OK(qn_model_open(path, &o.model));
  OK(qn__decoder_open(o.model, &options, &o.d));
  return o;
}

static inline void close_model(opened o) {
  qn__decoder_close(o.d);
  qn_model_close(o.model);
}

/* The first bytes of the text, of which tiny-llama makes tokens one by one. */
enum { WINDOWS = 64, LENGTH = 256, VOCAB = 256, HIDDEN = 256 };
static inline const int32_t *text_ids(void) {
  static int32_t ids[WINDOWS * LENGTH];
  static unsigned char text[WINDOWS * LENGTH];
  FILE *f = fopen(QN_TESTS "/models/text/valid.txt", "r");
  ck_assert(f && fread(text, 1, sizeof text, f) == sizeof text);
  fclose(f);
  for (size_t i = 0; i < sizeof text; i++) ids[i] = text[i];
  return ids;
}
#endif
