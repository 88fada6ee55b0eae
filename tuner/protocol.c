/* protocol.c - lines of JSON over a pair of descriptors, and the one value that has no other home: the device's. */
#include "protocol.h"
#include "fail.h"
#include "meter.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINE_MOST ((size_t)16 << 20)

void qn__line_fini(qn_line *l) {
  free(l->data);
  l->data = NULL, l->used = l->size = 0;
}

static ssize_t put(int fd, const char *p, size_t n) {
  ssize_t done = send(fd, p, n, MSG_NOSIGNAL);
  return done < 0 && errno == ENOTSOCK ? write(fd, p, n) : done;
}

qn_status qn__line_write(qn_line *l, const cJSON *j) {
  char *text = cJSON_PrintUnformatted(j);
  if (!text) return qn__fail(QN_E_NOMEM, "message");
  size_t n = strlen(text), at = 0;
  text[n++] = '\n'; /* in place of the terminator */
  while (at < n) {
    ssize_t done = put(l->out, text + at, n - at);
    if (done < 0 && errno != EINTR) break;
    at += done > 0 ? (size_t)done : 0;
  }
  free(text);
  return at == n ? QN_OK : qn__fail(QN_E_IO, "the other process is gone: %s", strerror(errno));
}

/* More bytes into the buffer. */
static qn_status fill(qn_line *l, double deadline) {
  if (l->used == l->size) {
    size_t size = l->size ? 2 * l->size : 65536;
    char *data = size <= LINE_MOST ? realloc(l->data, size) : NULL;
    if (!data) return qn__fail(QN_E_NOMEM, "message of %zu bytes", size);
    l->data = data, l->size = size;
  }
  double left = deadline - qn__now();
  struct pollfd p = {.fd = l->in, .events = POLLIN};
  int ready = poll(&p, 1, deadline < 0 ? -1 : left < 0 ? 0 : left > 1e6 ? 1000000000 : (int)(left * 1e3) + 1);
  if (!ready) return qn__fail(QN_E_LIMIT, "no answer in time");
  ssize_t n = ready < 0 ? -1 : read(l->in, l->data + l->used, l->size - l->used);
  if (n < 0 && errno == EINTR) return QN_OK;
  if (n <= 0) return qn__fail(QN_E_IO, "the other process is gone");
  l->used += (size_t)n;
  return QN_OK;
}

qn_status qn__line_read(qn_line *l, double seconds, cJSON **out) {
  double deadline = seconds < 0 ? -1 : qn__now() + seconds;
  char *end;
  *out = NULL;
  while (!(end = l->used ? memchr(l->data, '\n', l->used) : NULL)) QN_TRY(fill(l, deadline));
  size_t n = (size_t)(end - l->data);
  *out = cJSON_ParseWithLength(l->data, n);
  l->used -= n + 1;
  memmove(l->data, end + 1, l->used);
  if (cJSON_IsObject(*out)) return QN_OK;
  cJSON_Delete(*out);
  *out = NULL;
  return qn__fail(QN_E_FORMAT, "a line of %zu bytes is no JSON object", n);
}

/* ---- Values ------------------------------------------------------------------------------------------------------ */

qn_status qn__status_from_name(const char *name) {
  for (qn_status s = QN_OK; s <= QN_E_LIMIT; s++)
    if (name && !strcmp(name, qn_status_name(s))) return s;
  return QN_E_FORMAT;
}

#define TEXTS(X) X(name) X(target) X(arch) X(product) X(driver)
#define NUMBERS(X) X(threads) X(sm) X(sms) X(smem) X(regs) X(timed) X(cache[0]) X(cache[1]) X(cache[2])

cJSON *qn__info_to_json(const qn_device_info *i) {
  cJSON *j = cJSON_CreateObject();
#define X(field) cJSON_AddStringToObject(j, #field, i->field);
  TEXTS(X)
#undef X
#define X(field) cJSON_AddNumberToObject(j, #field, (double)i->field);
  NUMBERS(X)
#undef X
  cJSON *var = cJSON_AddArrayToObject(j, "var");
  for (int v = 0; v < QN_VAR_COUNT; v++) cJSON_AddItemToArray(var, cJSON_CreateNumber((double)i->var[v]));
  return j;
}

static void text(const cJSON *j, const char *key, char *out, size_t size) {
  const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));
  size_t n = s ? strnlen(s, size - 1) : 0;
  if (n) memcpy(out, s, n);
  out[n] = 0;
}

static double number(const cJSON *j) { return cJSON_IsNumber(j) ? j->valuedouble : 0; }

qn_status qn__info_from_json(const cJSON *j, qn_device_info *out) {
  *out = (qn_device_info){0};
#define X(field) text(j, #field, out->field, sizeof out->field);
  TEXTS(X)
#undef X
#define X(field) out->field = (__typeof__(out->field))number(cJSON_GetObjectItemCaseSensitive(j, #field));
  NUMBERS(X)
#undef X
  const cJSON *var = cJSON_GetObjectItemCaseSensitive(j, "var");
  for (int v = 0; v < QN_VAR_COUNT; v++) out->var[v] = (int64_t)number(cJSON_GetArrayItem(var, v));
  return out->name[0] && out->target[0] ? QN_OK : qn__fail(QN_E_FORMAT, "device description without a name");
}
