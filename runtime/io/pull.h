/* pull.h - pull parser for the JSON of checkpoint headers, which may be 100 MB and hostile.
 *
 * It allocates nothing: the caller walks the text and takes what it wants. Strings are unescaped into a buffer of the
 * caller's. Every function returns false on malformed text and leaves `bad` saying why. */
#ifndef QN_IO_PULL_H
#define QN_IO_PULL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qn__pull {
  const char *start, *p, *end;
  const char *bad; /* what was expected, at p; NULL: no fault yet */
} qn__pull;

bool qn__pull_take(qn__pull *j, char c);     /* skip blanks; take c if it is next. Not taking it is no fault */
bool qn__pull_need(qn__pull *j, char c);     /* the same, a fault if it is not next */
bool qn__pull_end(qn__pull *j);              /* skip blanks: is that all? */
bool qn__pull_int(qn__pull *j, uint64_t *v); /* a whole number >= 0 */
bool qn__pull_string(qn__pull *j, char *out, size_t cap, size_t *length); /* UTF-8, terminated; a fault if too long or
                                                                             if it holds a NUL */
bool qn__pull_skip(qn__pull *j); /* one value of any kind, nested at most 64 deep */
#endif
