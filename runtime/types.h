/* types.h - what QN_TYPE_MAP says of the element types beside their names and sizes. */
#ifndef QN_TYPES_H
#define QN_TYPES_H
#include "quernel.h"
#include <stdbool.h>

typedef enum qn_kind {
  QN_KIND_NONE,
  QN_KIND_UNSIGNED,
  QN_KIND_SIGNED,
  QN_KIND_IEEE,     /* a float whose exponent of ones is infinity and NaN */
  QN_KIND_NAN_LAST, /* a float without infinity whose last code is NaN */
  QN_KIND_FINITE    /* a float all of whose codes are numbers */
} qn_kind;

/* May X be of a type, and Y? */
typedef enum qn_as_x {
  QN_AS_X_NO,
  QN_AS_X_PLAIN, /* both may */
  QN_AS_X_SCALED /* X may, with a scale for each token */
} qn_as_x;

typedef struct qn_form {
  qn_kind kind;
  int exponent, mantissa; /* bits of a float below its sign; its bias is 2^(exponent - 1) - 1 */
  qn_as_x as_x;
} qn_form;

static const qn_form qn__form[] = {
#define QN_X(name, text, bits, kind, exponent, mantissa, as_x) {QN_KIND_##kind, exponent, mantissa, QN_AS_X_##as_x},
    QN_TYPE_MAP(QN_X)
#undef QN_X
};

/* The same as text for the generator (gen/types.lua): a line for each type, in the order of the list. */
#define QN_TYPE_LINE(name, text, bits, kind, exponent, mantissa, as_x)                                                 \
  text " " #bits " " #kind " " #exponent " " #mantissa " " #as_x "\n"
#define QN_TYPES_TEXT QN_TYPE_MAP(QN_TYPE_LINE)

enum { QN__TYPES = sizeof qn__form / sizeof *qn__form };

static inline bool qn__is_type(uint32_t t) { return t > QN_T_NONE && t < QN__TYPES; }
static inline bool qn__is_float(uint32_t t) { return qn__is_type(t) && qn__form[t].kind >= QN_KIND_IEEE; }
static inline bool qn__is_signed(uint32_t t) { return qn__is_type(t) && qn__form[t].kind == QN_KIND_SIGNED; }
/* Do activations of this type come with a scale for each token? */
static inline bool qn__act_scaled(uint32_t t) { return qn__is_type(t) && qn__form[t].as_x == QN_AS_X_SCALED; }
#endif
