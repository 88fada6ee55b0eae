#include "vectors.h"
#include "fail.h"
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char magic[] = "quernel conformance 1 ";

static bool read_words(FILE *f, uint32_t n, uint32_t **words) {
  *words = n < 1u << 20 ? malloc((n ? n : 1) * sizeof **words) : NULL;
  return *words && fread(*words, sizeof **words, n, f) == n;
}

static qn_status add(vectors *out, vector v) {
  vector *grown = realloc(out->list, (out->n + 1) * sizeof v);
  if (!grown) return qn__fail(QN_E_NOMEM, "vectors");
  out->list = grown;
  out->list[out->n++] = v;
  return QN_OK;
}

static qn_status read_file(const char *path, int sm, vectors *out) {
  char *line = NULL, arch[16] = "";
  size_t room = 0;
  FILE *f = fopen(path, "rb");
  qn_status s = QN_OK;
  if (!f) return qn__fail(QN_E_IO, "%s cannot be read", path);
  if (getline(&line, &room, f) < 0 || strncmp(line, magic, sizeof magic - 1) ||
      sscanf(line + sizeof magic - 1, "%15s", arch) != 1)
    s = qn__fail(QN_E_FORMAT, "%s: no vectors of this version", path);
  bool wanted = !sm || atoi(arch + strcspn(arch, "0123456789")) == sm;
  ssize_t length;
  while (!s && wanted && (length = getline(&line, &room, f)) > 0) {
    vector v = {0};
    line[length - 1] = 0;
    if (fread(&v.nx, 4, 1, f) != 1 || fread(&v.ny, 4, 1, f) != 1 || !read_words(f, v.nx, &v.x) ||
        !read_words(f, v.ny, &v.y))
      s = qn__fail(QN_E_FORMAT, "%s: '%s' is cut off", path, line);
    v.name = strdup(line), v.arch = strdup(arch);
    if (!s) s = add(out, v);
  }
  free(line), fclose(f);
  return s;
}

qn_status vectors_read(const char *folder, int sm, vectors *out) {
  glob_t g;
  *out = (vectors){0};
  qn_status s = QN_OK;
  if (glob(text("%s/*.vectors", folder), 0, NULL, &g)) return QN_OK;
  for (size_t i = 0; i < g.gl_pathc && !s; i++) s = read_file(g.gl_pathv[i], sm, out);
  globfree(&g);
  return s;
}

const vector *vectors_find(const vectors *v, const char *name) {
  for (size_t i = 0; i < v->n; i++)
    if (!strcmp(v->list[i].name, name)) return &v->list[i];
  return NULL;
}

void vectors_free(vectors *v) {
  for (size_t i = 0; i < v->n; i++)
    free(v->list[i].name), free(v->list[i].arch), free(v->list[i].x), free(v->list[i].y);
  free(v->list);
}

qn_status vectors_create(const char *folder, const qn_device_info *info, FILE **out) {
  const char *path = text("%s/sm_%d.vectors", folder, info->sm);
  char date[32];
  time_t now = time(NULL);
  struct tm day;
  strftime(date, sizeof date, "%Y-%m-%d", gmtime_r(&now, &day));
  *out = fopen(path, "wb");
  if (!*out) return qn__fail(QN_E_IO, "%s cannot be written", path);
  fprintf(*out, "%ssm_%d %s, driver %s, %s\n", magic, info->sm, info->product, info->driver, date);
  return fflush(*out) ? qn__fail(QN_E_IO, "%s: no room", path) : QN_OK; /* other processes append */
}

qn_status vectors_append(FILE *f, const form *of, const uint32_t *x, const uint32_t *y) {
  uint32_t n[2] = {(uint32_t)form_x_words(of), (uint32_t)form_y_words(of)};
  fprintf(f, "%s\n", of->name);
  fwrite(n, sizeof *n, 2, f);
  fwrite(x, sizeof *x, n[0], f);
  fwrite(y, sizeof *y, n[1], f);
  return fflush(f) || ferror(f) ? qn__fail(QN_E_IO, "vectors: no room") : QN_OK;
}
