/* settings.h - what a checkpoint says of its architecture, whichever container says it.
 *
 * A setting has a key in config.json (perhaps an older one, too) and one in a GGUF header, behind the architecture's
 * name there. What the file leaves out is taken from the architecture's row of arch.c, if that says it. */
#ifndef QN_EVAL_SETTINGS_H
#define QN_EVAL_SETTINGS_H
#include "arch.h"
#include "model.h"

enum { QN__WORD = 48 };

typedef struct qn__settings {
  const qn_model *model;   /* that says them (qn__model_settings) */
  const qn_model *weights; /* that has the tensors */
  const qn__arch *arch;
  const char *name;     /* of the architecture, in this container */
  const cJSON *part[2]; /* of config.json, looked at in this order; NULL: none */
} qn__settings;

/* Does the file say it? Then: is it a list? */
bool qn__setting_given(const qn__settings *s, qn__setting what);
bool qn__setting_is_list(const qn__settings *s, qn__setting what);

/* A number or a bool; of a list its element `item`. *value stays as it is if neither file nor architecture says it,
 * and if the file says null.
 * QN_E_FORMAT: it is something else, or the list is shorter. */
qn_status qn__setting_number(const qn__settings *s, qn__setting what, int64_t item, double *value);

/* The same for what must be a whole number from `least` to `most`. */
qn_status qn__setting_size(const qn__settings *s, qn__setting what, int64_t item, int64_t least, int64_t most,
                           int64_t *value);

/* A text, cut at QN__WORD - 1 bytes; of a list its element. "" if the file does not say it. */
qn_status qn__setting_word(const qn__settings *s, qn__setting what, int64_t item, char out[QN__WORD]);

/* Is a number in a list of config.json? */
bool qn__setting_has(const qn__settings *s, qn__setting what, int64_t number);

/* The failure of a value that we cannot use: "config.json: rope_type is "x"; y". */
qn_status qn__setting_refuse(const qn__settings *s, qn__setting what, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#endif
