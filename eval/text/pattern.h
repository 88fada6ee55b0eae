/* pattern.h - the regular expressions of tokenizers, by PCRE2.
 *
 * tokenizer.json means Oniguruma's. PCRE2 reads most patterns alike; what it would read in another sense is rewritten,
 * or refused by name. */
#ifndef QN_EVAL_PATTERN_H
#define QN_EVAL_PATTERN_H
#include "fail.h"
#include <stdbool.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* literal: the text stands for itself. Returns QN_OK, QN_E_SHAPE (what cannot be read of it), QN_E_NOMEM. */
qn_status qn__pattern_new(const char *source, bool literal, pcre2_code **out);

/* Matches in `n` bytes of valid UTF-8, one after the other, none of them empty at the end of the one before. */
typedef struct qn__matches {
  const pcre2_code *pattern;
  pcre2_match_data *data;
  const char *text;
  size_t n, from; /* to search from */
  bool any;       /* was there one? Then it ended at `end`: */
  size_t begin, end;
} qn__matches;

/* found: false past the last. Returns QN_OK, QN_E_LIMIT, QN_E_NOMEM. */
qn_status qn__matches_next(qn__matches *m, bool *found);
#endif
