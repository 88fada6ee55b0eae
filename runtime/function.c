/* function.c - the registered functions: a short list, looked through when a problem is bound. */
#include "function.h"
#include "desc.h"
#include "fail.h"
#include <pthread.h>
#include <string.h>

enum { most = 64 };
/* Of the process, as the functions are: they are registered before any context is open. */
static struct {
  char name[QN_NAME];
  qn_function fn; /* NULL: free */
} list[most];
/* Steps before functions, which gather X by the bytes of an element: for those that take no permutation. */
#define GATHER(bytes)                                                                                                  \
  static void gather_##bytes(const qn_function_args *a, int64_t begin, int64_t end, int32_t thread) {                  \
    (void)thread;                                                                                                      \
    for (int64_t i = begin; i < end; i++)                                                                              \
      for (int64_t j = 0; j < a->k; j++)                                                                               \
        memcpy((char *)a->y + (i * a->k + j) * bytes, (const char *)a->x + (i * a->ldx + a->perm[j]) * bytes, bytes);  \
  }
GATHER(1)
GATHER(2)
GATHER(4)

static const struct {
  const char *name;
  qn_function fn;
} own[] = {{"gather_x1", gather_1}, {"gather_x2", gather_2}, {"gather_x4", gather_4}};

static qn_function find_own(const char *name) {
  for (size_t i = 0; i < QN_COUNT(own); i++)
    if (!strcmp(name, own[i].name)) return own[i].fn;
  return NULL;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Where `name` is, else where it may go; `most` if there is no room. */
static int place(const char *name) {
  int free = most;
  for (int i = 0; i < most; i++) {
    if (list[i].fn && !strcmp(list[i].name, name)) return i;
    if (!list[i].fn && free == most) free = i;
  }
  return free;
}

qn_status qn_function_register(const char *name, qn_function fn) {
  if (!name || !*name || strlen(name) >= QN_NAME)
    return qn__fail(QN_E_ARG, "qn_function_register: '%s' is not a name of 1 .. %d bytes", name ? name : "",
                    QN_NAME - 1);
  if (find_own(name)) return qn__fail(QN_E_ARG, "qn_function_register: '%s' is a function of the library", name);
  pthread_mutex_lock(&lock);
  int i = place(name);
  if (i < most) {
    strcpy(list[i].name, name);
    list[i].fn = fn;
  }
  pthread_mutex_unlock(&lock);
  return i < most ? QN_OK : qn__fail(QN_E_LIMIT, "qn_function_register: '%s' is beyond %d functions", name, most);
}

qn_function qn__function_find(const char *name) {
  qn_function mine = find_own(name);
  if (mine) return mine;
  pthread_mutex_lock(&lock);
  int i = place(name);
  qn_function fn = i < most && !strcmp(list[i].name, name) ? list[i].fn : NULL;
  pthread_mutex_unlock(&lock);
  return fn;
}
