/* test_format_vectors.c - test vectors of every format, read from files that are made of them, compared bit for bit.
 *
 *     test_format_vectors [FILE.json…]
 *
 * A vector is {id, format, params, tensors {name: {dtype, shape, hex}}, expected {shape, values}}. Each becomes the
 * file that its tool would have written (a .gguf of one tensor, or a .safetensors with a config.json), is opened
 * through the public interface and decoded. Prints "id: exact" or the first difference; exits 1 if any differs. */
#include "fail.h"
#include "io_decode.h"
#include "quernel_io.h"
#include "vector_files.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const cJSON *get(const cJSON *o, const char *key) { return cJSON_GetObjectItemCaseSensitive(o, key); }

/* ---- Comparing --------------------------------------------------------------------------------------------------- */

static bool expect(const char *id, const cJSON *v, const float *x, int64_t n, int64_t k) {
  const cJSON *rows = get(get(v, "expected"), "values"), *row, *value;
  int64_t r = 0, c = 0;
  if (cJSON_GetArraySize(rows) != n || cJSON_GetArraySize(rows->child) != k)
    return printf("%s: %jd x %jd, expected %d x %d\n", id, (intmax_t)n, (intmax_t)k, cJSON_GetArraySize(rows),
                  cJSON_GetArraySize(rows->child)),
           false;
  cJSON_ArrayForEach(row, rows) {
    c = 0;
    cJSON_ArrayForEach(value, row) {
      float want = cJSON_IsNumber(value) ? (float)value->valuedouble : NAN, is = x[r * k + c];
      if (is != want && !(isnan(is) && isnan(want)))
        return printf("%s: [%jd, %jd] is %.9g, expected %.9g\n", id, (intmax_t)r, (intmax_t)c, (double)is,
                      (double)want),
               false;
      c++;
    }
    r++;
  }
  return true;
}

/* The weight that the vector is about: the only one with a format, or the first. */
static const qn_tensor *subject(const qn_model *m) {
  const qn_tensor *t, *first = NULL;
  for (size_t i = 0; (t = qn_model_tensor(m, i)); i++)
    if ((t->format || t->refusal) && (!first || (t->quantized && !first->quantized))) first = t;
  return first;
}

static bool try_vector(const cJSON *v) {
  const char *id = cJSON_GetStringValue(get(v, "id"));
  qn_model *m = NULL;
  qn_planes *p = NULL;
  if (!id) id = "a vector without id";
  bool ok = qn_model_open(vector_write(v), &m) == QN_OK;
  const qn_tensor *t = ok ? subject(m) : NULL;
  ok = ok && t && qn_model_planes(m, t, 0, &p) == QN_OK;
  if (!ok) printf("%s: %s\n", id, m && !t ? "no weight is recognised" : qn_io_errmsg());
  float *x = ok ? malloc((size_t)(p->n * p->k) * sizeof *x) : NULL;
  const char *wrong = ok ? io_decode(p, x) : NULL;
  if (wrong) printf("%s: no formula: %s\n", id, wrong), ok = false;
  ok = ok && expect(id, v, x, p->n, p->k);
  if (ok) printf("%s: exact (%s, %s)\n", id, t->dialect, t->format);
  free(x);
  qn_planes_free(p);
  qn_model_close(m);
  return ok;
}

static int try_file(const char *name) {
  cJSON *root = vector_file(name);
  const cJSON *v;
  int wrong = 0, count = 0;
  cJSON_ArrayForEach(v, vector_list(root)) wrong += !try_vector(v), count++;
  printf("%s: %d of %d exact\n", name, count - wrong, count);
  cJSON_Delete(root);
  return wrong || !count;
}

int main(int argc, char **argv) {
  int failed = 0;
  vector_begin();
  if (argc < 2)
    failed = try_file(QN_TESTS "/vectors/format_vectors.json") | try_file(QN_TESTS "/vectors/twin_vectors.json");
  for (int i = 1; i < argc; i++) failed |= try_file(argv[i]);
  vector_end();
  return failed;
}
