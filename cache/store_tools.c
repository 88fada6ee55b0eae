/* store_tools.c - one walk over the files of a root, and the tools as what they do with each. */
#include "store_tools.h"
#include "fail.h"
#include "file.h"
#include "json.h"
#include "store.h"
#include "store_file.h"
#include "tree.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- The walk ---------------------------------------------------------------------------------------------------- */

enum { path_max = 2 * PATH_MAX };
static const char *const kinds[] = {"artifact", "evidence", "plan", "suspect"};

typedef enum what { ENTRY, BLOB, TEMPORARY, OTHER } what;

/* A file of a store: ROOT/ENV/KIND/NAME. */
typedef struct place {
  const char *env, *kind, *name;
  what what;
  char folder[path_max - NAME_MAX - 2], path[path_max];
} place;

/* What is done with a file; a status other than QN_OK ends the walk. */
typedef qn_status (*visitor)(void *ud, const place *p);

static what kind_of_file(const char *name) {
  const char *suffix = strrchr(name, '.');
  if (name[0] == '.') return TEMPORARY;
  if (suffix && !strcmp(suffix, ".json")) return ENTRY;
  return suffix && (!strcmp(suffix, ".bin") || !strcmp(suffix, ".ptx")) ? BLOB : OTHER;
}

static qn_status walk_folder(place *p, visitor visit, void *ud) {
  qn_status s = QN_OK;
  DIR *d = opendir(p->folder);
  if (!d && errno == ENOMEM) return qn__fail(QN_E_NOMEM, "store: no memory for %s", p->folder);
  for (struct dirent *f; d && s == QN_OK && (f = readdir(d));) {
    if (!strcmp(f->d_name, ".") || !strcmp(f->d_name, "..")) continue;
    p->name = f->d_name;
    p->what = kind_of_file(f->d_name);
    snprintf(p->path, sizeof p->path, "%s/%s", p->folder, f->d_name);
    s = visit(ud, p);
  }
  if (d) closedir(d);
  return s;
}

static qn_status walk_environment(const char *root, const char *env, visitor visit, void *ud) {
  place *p = malloc(sizeof *p);
  if (!p) return qn__fail(QN_E_NOMEM, "store");
  qn_status s = QN_OK;
  for (size_t i = 0; i < QN_COUNT(kinds) && s == QN_OK; i++) {
    p->env = env;
    p->kind = kinds[i];
    snprintf(p->folder, sizeof p->folder, "%s/%s/%s", root, env, kinds[i]);
    s = walk_folder(p, visit, ud);
  }
  free(p);
  return s;
}

static bool is_environment(const char *name) { return strlen(name) == 32 && strspn(name, "0123456789abcdef") == 32; }

/* The environments of a root one after another; `stop` ends it without an error. */
static qn_status each_environment(const char *root, qn_status (*visit)(void *ud, const char *env, bool *stop),
                                  void *ud) {
  qn_status s = QN_OK;
  bool stop = false;
  DIR *d = opendir(root);
  if (!d) return qn__fail(qn__errno_status(errno), "store: %s: %s", root, strerror(errno));
  for (struct dirent *f; s == QN_OK && !stop && (f = readdir(d));)
    if (is_environment(f->d_name)) s = visit(ud, f->d_name, &stop);
  closedir(d);
  return s;
}

typedef struct tour {
  const char *root;
  visitor visit;
  void *ud;
} tour;

static qn_status tour_environment(void *ud, const char *env, bool *stop) {
  const tour *t = ud;
  (void)stop;
  return walk_environment(t->root, env, t->visit, t->ud);
}

static qn_status walk(const char *root, visitor visit, void *ud) {
  return each_environment(root, tour_environment, &(tour){root, visit, ud});
}

static const char older[] = "an entry of an older version"; /* what fault says of one */

/* *why is NULL if nothing is wrong with the file. QN_E_NOMEM. */
static qn_status fault(const place *p, const char **why) {
  char hash[33];
  cJSON *value = NULL;
  qn_status s = p->what == ENTRY ? qn__entry_read(p->path, NULL, NULL, &value) : QN_OK;
  if (p->what == TEMPORARY) *why = "left over from a writer that was killed";
  else if (p->what == OTHER) *why = "not a file of the store";
  else if (p->what == ENTRY) *why = value ? NULL : qn__entry_older(p->path) ? older : "no whole entry in its place";
  else {
    errno = 0;
    *why = qn__file_hash(p->path, hash) && !strncmp(hash, p->name, 32) ? NULL : "contents differ from their hash";
    if (*why && errno == ENOMEM) s = qn__fail(QN_E_NOMEM, "store: no memory for %s", p->path);
  }
  cJSON_Delete(value);
  return s;
}

static double age_of(const struct stat *st) { return difftime(time(NULL), st->st_mtime); }

/* ---- Verify ------------------------------------------------------------------------------------------------------ */

typedef struct reporter {
  void (*report)(void *ud, const char *path, const char *what);
  void *ud;
} reporter;

static qn_status verify_file(void *ud, const place *p) {
  const reporter *r = ud;
  const char *why;
  QN_TRY(fault(p, &why));
  if (why && why != older) r->report(r->ud, p->path, why);
  return QN_OK;
}

qn_status qn__store_verify(const char *root, void (*report)(void *ud, const char *path, const char *what), void *ud) {
  char at[PATH_MAX];
  QN_TRY(qn__store_root(root, at));
  return walk(at, verify_file, &(reporter){report, ud});
}

/* ---- List -------------------------------------------------------------------------------------------------------- */

typedef struct lister {
  const char *root;
  int (*each)(void *ud, const qn_store_environment *e);
  void *ud;
} lister;

static void add_verdict(cJSON *list, const char *key, const cJSON *value, const char *why) {
  const char *name = qn__json_text(value, "name", NULL);
  cJSON *j = cJSON_CreateObject();
  qn__json_add_text(j, "key", key);
  if (name) qn__json_add_text(j, "name", name);
  qn__json_add_text(j, "why", why ? why : "");
  qn__json_append(list, j);
}

static void count_entry(qn_store_environment *e, const place *p, const char *key, const cJSON *value) {
  if (!strcmp(p->kind, "plan")) e->plans++, qn__json_append_text(e->problems, key);
  if (!strcmp(p->kind, "suspect")) add_verdict(e->suspects, key, value, qn__json_text(value, "why", NULL));
  if (!strcmp(p->kind, "evidence")) {
    e->evidence++;
    if (qn__json_text(value, "rejected", NULL))
      add_verdict(e->rejected, key, value, qn__json_text(value, "rejected", NULL));
  }
  if (!strcmp(p->kind, "artifact")) {
    if (cJSON_HasObjectItem(value, "image")) e->artifacts++;
    else e->failures++, add_verdict(e->rejected, key, value, qn__json_text(value, "why", NULL));
  }
}

static qn_status count_file(void *ud, const place *p) {
  qn_store_environment *e = ud;
  struct stat st;
  const char *why;
  char *key;
  cJSON *value;
  if (!stat(p->path, &st)) {
    e->bytes += st.st_size;
    if (!e->first || st.st_mtime < e->first) e->first = st.st_mtime;
    if (st.st_mtime > e->last) e->last = st.st_mtime;
  }
  QN_TRY(fault(p, &why));
  e->older += why == older;
  e->damaged += why && why != older;
  if (why || p->what != ENTRY) return QN_OK;
  QN_TRY(qn__entry_read(p->path, NULL, &key, &value));
  if (value) count_entry(e, p, key, value);
  cJSON_Delete(value);
  free(key);
  return QN_OK;
}

static qn_status list_environment(void *ud, const char *env, bool *stop) {
  const lister *l = ud;
  char path[path_max], about[path_max + 16];
  size_t size;
  snprintf(path, sizeof path, "%s/%s", l->root, env);
  snprintf(about, sizeof about, "%s/env.json", path);
  char *text;
  qn__file_read(about, &text, &size);
  cJSON *json = text ? cJSON_ParseWithLength(text, size) : NULL;
  qn_store_environment e = {.path = path,
                            .hash = env,
                            .about = json,
                            .problems = cJSON_CreateArray(),
                            .rejected = cJSON_CreateArray(),
                            .suspects = cJSON_CreateArray()};
  qn_status s = walk_environment(l->root, env, count_file, &e);
  if (s == QN_OK && !(qn__json_whole(e.problems) && qn__json_whole(e.rejected) && qn__json_whole(e.suspects)))
    s = qn__fail(QN_E_NOMEM, "%s: no memory for what it holds", path);
  if (s == QN_OK) *stop = l->each(l->ud, &e) != 0;
  cJSON_Delete(e.problems);
  cJSON_Delete(e.rejected);
  cJSON_Delete(e.suspects);
  cJSON_Delete(json);
  free(text);
  return s;
}

qn_status qn__store_list(const char *root, int (*each)(void *ud, const qn_store_environment *e), void *ud) {
  char at[PATH_MAX];
  QN_TRY(qn__store_root(root, at));
  return each_environment(at, list_environment, &(lister){at, each, ud});
}

/* ---- Diff -------------------------------------------------------------------------------------------------------- */

typedef struct differ {
  const char *other;
  bool swapped; /* the walk is over b: report what a lacks, nothing else */
  void (*each)(void *ud, const char *env, const char *kind, const char *key, const cJSON *in_a, const cJSON *in_b);
  void *ud;
} differ;

/* The same file of another root. */
static void path_in(const char *root, const place *p, char out[path_max]) {
  snprintf(out, path_max, "%s/%s/%s/%s", root, p->env, p->kind, p->name);
}

static qn_status diff_file(void *ud, const place *p) {
  const differ *d = ud;
  char path[path_max], *key;
  cJSON *mine, *theirs = NULL;
  if (p->what != ENTRY || !strcmp(p->kind, "artifact") || !strcmp(p->kind, "suspect")) return QN_OK;
  QN_TRY(qn__entry_read(p->path, NULL, &key, &mine));
  if (!mine) return QN_OK;
  path_in(d->other, p, path);
  qn_status s = qn__entry_read(path, key, NULL, &theirs);
  if (!s && d->swapped && !theirs) d->each(d->ud, p->env, p->kind, key, NULL, mine);
  if (!s && !d->swapped && !cJSON_Compare(mine, theirs, true)) d->each(d->ud, p->env, p->kind, key, mine, theirs);
  cJSON_Delete(theirs);
  cJSON_Delete(mine);
  free(key);
  return s;
}

qn_status qn__store_diff(const char *a, const char *b,
                         void (*each)(void *ud, const char *env, const char *kind, const char *key, const cJSON *in_a,
                                      const cJSON *in_b),
                         void *ud) {
  char in_a[PATH_MAX], in_b[PATH_MAX];
  QN_TRY(qn__store_root(a, in_a));
  QN_TRY(qn__store_root(b, in_b));
  QN_TRY(walk(in_a, diff_file, &(differ){in_b, false, each, ud}));
  return walk(in_b, diff_file, &(differ){in_a, true, each, ud});
}

/* ---- Merge ------------------------------------------------------------------------------------------------------- */

typedef struct merger {
  const char *into, *from;
  what now; /* images go first: an entry never names what is not there */
  qn_store_better better;
  void *ud;
  qn_store_counts *counts;
} merger;

static int more_samples(void *ud, const char *kind, const char *key, const cJSON *mine, const cJSON *theirs) {
  (void)ud, (void)kind, (void)key;
  return qn__json_number(theirs, "samples", 0) > qn__json_number(mine, "samples", 0);
}

static qn_status copy_file(const merger *m, const place *p) {
  char folder[path_max];
  size_t size;
  char *data;
  if (qn__file_read(p->path, &data, &size)) return QN_OK; /* gone meanwhile */
  snprintf(folder, sizeof folder, "%s/%s/%s", m->into, p->env, p->kind);
  qn_status s = qn__store_write(folder, p->name, data, size);
  free(data);
  return s;
}

static qn_status merge_blob(const merger *m, const place *p, const char *path) {
  char hash[33];
  bool there = access(path, F_OK) == 0;
  if (there && qn__file_hash(path, hash) && !strncmp(hash, p->name, 32)) {
    m->counts->same++;
    return QN_OK;
  }
  if (there) m->counts->replaced++;
  else m->counts->copied++;
  return copy_file(m, p);
}

static qn_status merge_entry(const merger *m, const place *p, const char *path) {
  char *key;
  cJSON *theirs, *mine = NULL;
  size_t *count;
  QN_TRY(qn__entry_read(p->path, NULL, &key, &theirs));
  qn_status s = theirs ? qn__entry_read(path, key, NULL, &mine) : QN_OK;
  if (s) count = &m->counts->kept;
  else if (!theirs) count = &m->counts->damaged; /* since it was looked at */
  else if (!mine) count = access(path, F_OK) ? &m->counts->copied : &m->counts->replaced;
  else if (cJSON_Compare(mine, theirs, true)) count = &m->counts->same;
  else count = m->better(m->ud, p->kind, key, mine, theirs) ? &m->counts->replaced : &m->counts->kept;
  cJSON_Delete(mine);
  cJSON_Delete(theirs);
  free(key);
  ++*count;
  return count == &m->counts->copied || count == &m->counts->replaced ? copy_file(m, p) : s;
}

static qn_status merge_file(void *ud, const place *p) {
  const merger *m = ud;
  const char *why;
  char path[path_max];
  if (p->what != m->now || !strcmp(p->kind, "suspect")) return QN_OK; /* a machine's own trouble */
  QN_TRY(fault(p, &why));
  m->counts->damaged += why != NULL;
  if (why) return QN_OK;
  path_in(m->into, p, path);
  return p->what == BLOB ? merge_blob(m, p, path) : merge_entry(m, p, path);
}

/* What the environment's hash is made of goes along. */
static qn_status merge_environment(void *ud, const char *env, bool *stop) {
  const merger *m = ud;
  char from[path_max], folder[path_max], into[path_max + 16];
  size_t size;
  (void)stop;
  snprintf(from, sizeof from, "%s/%s/env.json", m->from, env);
  snprintf(folder, sizeof folder, "%s/%s", m->into, env);
  snprintf(into, sizeof into, "%s/env.json", folder);
  char *text = NULL;
  if (access(into, F_OK)) qn__file_read(from, &text, &size);
  qn_status s = text ? qn__store_write(folder, "env.json", text, size) : QN_OK;
  free(text);
  return s;
}

qn_status qn__store_merge(const char *into, const char *from, qn_store_better better, void *ud, qn_store_counts *out) {
  char to[PATH_MAX], of[PATH_MAX];
  QN_TRY(qn__store_root(into, to));
  QN_TRY(qn__store_root(from, of));
  *out = (qn_store_counts){0};
  merger m = {to, of, BLOB, better ? better : more_samples, ud, out};
  QN_TRY(each_environment(of, merge_environment, &m));
  QN_TRY(walk(of, merge_file, &m));
  m.now = ENTRY;
  return walk(of, merge_file, &m);
}

/* ---- Forgetting -------------------------------------------------------------------------------------------------- */

typedef struct forgetter {
  const char *what;
  cJSON *hashes; /* of the variants of that name: by these the entries go */
  size_t n;
} forgetter;

/* Is `wanted` one of the words of a key, or what a problem begins with: its format, or that and the shape? */
static bool has_word(const char *key, const char *wanted) {
  size_t n = strlen(wanted);
  for (const char *p = key; n && (p = strstr(p, wanted)); p++)
    if ((p == key || p[-1] == ' ') && (!p[n] || strchr(" :", p[n]))) return true;
  return false;
}

static bool holds_text(const cJSON *value, const char *wanted) {
  const cJSON *x;
  if (cJSON_IsString(value)) return !strcmp(value->valuestring, wanted);
  cJSON_ArrayForEach(x, value)
    if (holds_text(x, wanted)) return true;
  return false;
}

/* Evidence of a variant has its name, and its hash behind the first word of the key. */
static qn_status note_hash(void *ud, const place *p) {
  const forgetter *f = ud;
  char *key, hash[33];
  cJSON *value;
  if (p->what != ENTRY || strcmp(p->kind, "evidence")) return QN_OK;
  QN_TRY(qn__entry_read(p->path, NULL, &key, &value));
  const char *name = qn__json_text(value, "name", NULL);
  if (name && !strcmp(name, f->what) && sscanf(key, "verify %32s", hash) == 1) qn__json_append_text(f->hashes, hash);
  cJSON_Delete(value);
  free(key);
  return QN_OK;
}

/* Of artifacts only the verdict that a source, which it names first, does not compile. */
static bool concerns(const place *p, const char *key, const cJSON *value, const char *wanted) {
  const char *why = qn__json_text(value, "why", NULL);
  size_t n = strlen(wanted);
  if (strcmp(p->kind, "artifact")) return !strcmp(key, wanted) || has_word(key, wanted) || holds_text(value, wanted);
  return !cJSON_HasObjectItem(value, "image") &&
         (!strcmp(key, wanted) || (why && !strncmp(why, wanted, n) && why[n] == ':'));
}

static qn_status forget_file(void *ud, const place *p) {
  forgetter *f = ud;
  char *key;
  cJSON *value;
  const cJSON *hash;
  if (p->what != ENTRY) return QN_OK;
  QN_TRY(qn__entry_read(p->path, NULL, &key, &value));
  bool hit = value && concerns(p, key, value, f->what);
  if (value)
    cJSON_ArrayForEach(hash, f->hashes) hit |= concerns(p, key, value, hash->valuestring);
  cJSON_Delete(value);
  free(key);
  if (hit && unlink(p->path))
    return qn__fail(qn__errno_status(errno), "store: cannot remove %s: %s", p->path, strerror(errno));
  f->n += hit;
  return QN_OK;
}

qn_status qn__store_forget(const char *root, const char *wanted, size_t *n) {
  char at[PATH_MAX];
  forgetter f = {.what = wanted, .hashes = cJSON_CreateArray()};
  qn_status s = qn__store_root(root, at);
  if (s == QN_OK) s = walk(at, note_hash, &f);
  if (s == QN_OK && !qn__json_whole(f.hashes)) s = qn__fail(QN_E_NOMEM, "%s: no memory for what to forget", at);
  if (s == QN_OK) s = walk(at, forget_file, &f);
  cJSON_Delete(f.hashes);
  *n = f.n;
  return s;
}

/* ---- Throwing out ------------------------------------------------------------------------------------------------ */

typedef struct collector {
  double age;
  char (*used)[33]; /* images that entries name */
  size_t n_used, room;
  qn_status status; /* what could not be removed, the last */
  qn_store_counts *counts;
} collector;

static qn_status note_image(collector *c, const cJSON *value, const char *field) {
  const char *hash = qn__json_text(value, field, NULL);
  if (!hash || strlen(hash) != 32) return QN_OK;
  if (c->n_used == c->room) {
    size_t room = 2 * c->room + 64;
    void *grown = realloc(c->used, room * sizeof *c->used);
    if (!grown) return qn__fail(QN_E_NOMEM, "store: %zu images", room);
    c->used = grown;
    c->room = room;
  }
  memcpy(c->used[c->n_used++], hash, 33);
  return QN_OK;
}

static qn_status note_file(void *ud, const place *p) {
  if (p->what != ENTRY || strcmp(p->kind, "artifact")) return QN_OK;
  cJSON *value;
  QN_TRY(qn__entry_read(p->path, NULL, NULL, &value)); /* or images that it names would go */
  qn_status s = note_image(ud, value, "image");
  if (s == QN_OK) s = note_image(ud, value, "ptx");
  cJSON_Delete(value);
  return s;
}

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

static bool in_use(const collector *c, const place *p) {
  char hash[33];
  snprintf(hash, sizeof hash, "%.32s", p->name);
  return p->what != BLOB || (c->n_used && bsearch(hash, c->used, c->n_used, sizeof *c->used, by_text));
}

static qn_status collect_file(void *ud, const place *p) {
  collector *c = ud;
  struct stat st;
  const char *why;
  if (p->what == OTHER || stat(p->path, &st) || age_of(&st) < c->age) return QN_OK;
  QN_TRY(fault(p, &why));
  if (!why && in_use(c, p)) return QN_OK;
  if (qn__tree_remove(p->path)) { /* the rest is collected all the same */
    c->status = qn__fail(QN_E_IO, "store: cannot remove %s: %m", p->path);
    return QN_OK;
  }
  c->counts->removed++;
  if (why) c->counts->damaged++;
  return QN_OK;
}

qn_status qn__store_gc(const char *root, double age, qn_store_counts *out) {
  char at[PATH_MAX];
  collector c = {.age = age, .counts = out};
  *out = (qn_store_counts){0};
  QN_TRY(qn__store_root(root, at));
  qn_status s = walk(at, note_file, &c);
  if (c.n_used) qsort(c.used, c.n_used, sizeof *c.used, by_text);
  if (s == QN_OK) s = walk(at, collect_file, &c);
  free(c.used);
  return s == QN_OK ? c.status : s;
}
