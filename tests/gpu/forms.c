#include "forms.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void form_add(form_list *l, form f) {
  form *grown = realloc(l->form, (l->n + 1) * sizeof f);
  if (!grown) abort();
  l->form = grown;
  l->form[l->n++] = f;
}

const char *text(const char *format, ...) {
  va_list args;
  char *out;
  va_start(args, format);
  if (vasprintf(&out, format, args) < 0) abort();
  va_end(args);
  return out;
}

const char *registers(char letter, int first, int n) {
  const char *out = "";
  for (int i = 0; i < n; i++) out = text("%s%s%c%d", out, i ? ", " : "", letter, first + i);
  return text("{%s}", out);
}

void draw_any(const form *f, uint32_t *x, uint64_t *state) {
  for (int i = 0; i < form_x_words(f); i++) x[i] = draw_bits(state);
}
