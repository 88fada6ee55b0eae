/* status.c - names of statuses and element types, and the per-thread failure text. */
#include "fail.h"
#undef qn__fail
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char detail[4096];

/* Bytes of the UTF-8 sequence at p; 0: it is none. */
static size_t utf8_length(const unsigned char *p) {
  size_t n = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;
  for (size_t i = 1; i < n; i++)
    if ((p[i] & 0xc0) != 0x80) return 0;
  return n;
}

void qn__printable(char *text) {
  for (unsigned char *p = (unsigned char *)text; *p;) {
    size_t n = utf8_length(p);
    bool control = (*p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0); /* or C1 */
    if (!n) n = 1, control = true;
    if (control) memset(p, '?', n);
    p += n;
  }
}

qn_status qn__fail(qn_status s, const char *format, ...) {
  char text[sizeof detail]; /* the arguments may hold the old detail */
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  qn__printable(text);
  memcpy(detail, text, sizeof detail);
  return s;
}

const char *qn__errmsg(void) { return detail; }

typedef struct named {
  qn_status status;
  const char *name, *text;
} named;

static const named *find(qn_status s) {
  static const named list[] = {
#define QN_X(name, text) {QN_##name, "QN_" #name, text},
      QN_STATUS_MAP(QN_X)
#undef QN_X
          {QN_E_COMPILE, "QN_E_COMPILE", "kernel does not compile"},
      {QN_E_WRONG, "QN_E_WRONG", "result is wrong"},
  };
  static const named unknown = {.name = "QN_E_UNKNOWN", .text = "unknown status"};
  for (size_t i = 0; i < QN_COUNT(list); i++)
    if (list[i].status == s) return &list[i];
  return &unknown;
}

const char *qn_status_name(qn_status s) { return find(s)->name; }
const char *qn_status_text(qn_status s) { return find(s)->text; }
const char *qn_version(void) { return QN_VERSION; }

static const struct {
  const char *name;
  int bits;
} types[] = {
#define QN_X(name, text, bits, ...) {text, bits},
    QN_TYPE_MAP(QN_X)
#undef QN_X
};

const char *qn_type_name(qn_type t) { return (size_t)t < QN_COUNT(types) ? types[t].name : NULL; }
int qn_type_bits(qn_type t) { return (size_t)t < QN_COUNT(types) ? types[t].bits : 0; }

qn_type qn_type_from_name(const char *s) {
  for (size_t i = 0; s && i < QN_COUNT(types); i++)
    if (!strcmp(s, types[i].name)) return (qn_type)i;
  return QN_T_NONE;
}
