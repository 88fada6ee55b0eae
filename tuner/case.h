/* case.h - one variant of one problem, ready to be run: what the supervisor sends and the worker loads. */
#ifndef QN_CASE_H
#define QN_CASE_H
#include "range.h"
#include "recipe.h"
#include <cjson/cJSON.h>

/* What is to be run. Large: keep it on the heap. */
typedef struct qn_case {
  qn_problem problem;
  qn_format format;
  char name[192], hash[33]; /* of the variant */
  char image[4096];     /* path of the compiled object, or of the shared library that has a function of the user's */
  char symbol[QN_NAME]; /* its name there; "": an object */
  char sum[33];         /* its content hash; "": not checked */
  qn_layout layout;
  qn_recipe recipe;
  int64_t m_min, m_max; /* M that it serves; m_max 0: no limit */
  int64_t m_tile;       /* tokens of a tile; 0: it does not say */
} qn_case;

static inline bool qn__case_serves(const qn_case *c, int64_t m) { return qn__serves(c->m_min, c->m_max, m, m); }

/* To and from JSON. Reading checks everything: format, layout for the problem's shape, recipe. QN_E_FORMAT. */
cJSON *qn__case_to_json(const qn_case *c);
qn_status qn__case_from_json(const cJSON *j, qn_case *out);

/* A case loaded on a device. */
typedef struct qn_subject {
  const qn_case *c; /* borrowed */
  qn_device *device;
  qn_module *module;
  void *library;
  void *fn[QN_RECIPE_STEPS];
} qn_subject;

/* Read the image from its path, check its hash, load it and find the entries; or open the library. QN_E_IO,
 * QN_E_FORMAT, QN_E_NO_KERNEL, QN_E_CUDA. On failure nothing is left open. */
qn_status qn__subject_open(qn_device *d, const qn_case *c, qn_subject *out);
void qn__subject_close(qn_subject *s);
#endif
