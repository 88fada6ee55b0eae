/* function.c - the registered functions: a short list, looked through when a problem is bound. */
#include "function.h"
#include "desc.h"
#include "fail.h"
#include <pthread.h>
#include <string.h>

enum { most = 64 };
static struct {
  char name[QN_NAME];
  qn_function fn; /* NULL: free */
} list[most];
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
    return qn__fail(QN_E_ARG, "qn_function_register: '%s' is no name of 1 .. %d bytes", name ? name : "", QN_NAME - 1);
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
  pthread_mutex_lock(&lock);
  int i = place(name);
  qn_function fn = i < most && !strcmp(list[i].name, name) ? list[i].fn : NULL;
  pthread_mutex_unlock(&lock);
  return fn;
}
