/* pack.c - writes packs: everything sorted, every record coded, sections laid end to end, checksums last.
 *
 * The whole file is put together in memory: it is as large as its kernels, which are there already. */
#include "pack.h"
#include "fail.h"
#include "file.h"
#include "hash.h"
#include <stdio.h>
#include <stdlib.h>

struct qn_pack_builder {
  size_t n_devices, n_kernels, n_plans;
  qn_pack_device *device;
  qn_kernel *kernel; /* sorted by hash */
  qn_plan *plan;
};

qn_status qn__pack_builder_new(qn_pack_builder **out) {
  *out = calloc(1, sizeof **out);
  return *out ? QN_OK : qn__fail(QN_E_NOMEM, "pack builder");
}

void qn__pack_builder_free(qn_pack_builder *b) {
  if (!b) return;
  free(b->device);
  free(b->kernel);
  free(b->plan);
  free(b);
}

/* ---- Adding ------------------------------------------------------------------------------------------------------ */

/* Put `item` into an array of n at `place`; the array grows by one, to `most` at the most. */
static qn_status insert(void **array, size_t *n, size_t most, size_t place, const void *item, size_t size) {
  if (*n == most)
    return qn__fail(QN_E_LIMIT, "a pack holds at most %d devices, %d plans and %d kernels", QN_PACK_MAX_DEVICES,
                    QN_PACK_MAX_PLANS, QN_PACK_MAX_KERNELS);
  char *a = realloc(*array, (*n + 1) * size);
  if (!a) return qn__fail(QN_E_NOMEM, "pack builder: %zu records", *n + 1);
  *array = a;
  memmove(a + (place + 1) * size, a + place * size, (*n - place) * size);
  memcpy(a + place * size, item, size);
  ++*n;
  return QN_OK;
}

qn_status qn__pack_add_device(qn_pack_builder *b, const char *target, const char *arch, const char *product,
                              int threads) {
  qn_pack_device d = {.threads = threads > 0 ? (uint32_t)threads : 0};
  if ((size_t)snprintf(d.target, sizeof d.target, "%s", target) >= sizeof d.target ||
      (size_t)snprintf(d.arch, sizeof d.arch, "%s", arch) >= sizeof d.arch)
    return qn__fail(QN_E_ARG, "device '%s' '%s': text too long", target, arch);
  snprintf(d.product, sizeof d.product, "%s", product);
  QN_TRY(qn__pack_device_check(&d));
  return insert((void **)&b->device, &b->n_devices, QN_PACK_MAX_DEVICES, b->n_devices, &d, sizeof d);
}

/* Place of a hash among the sorted kernels. */
static size_t kernel_place(const qn_pack_builder *b, const char *hash) {
  size_t low = 0, high = b->n_kernels;
  while (low < high) {
    size_t mid = (low + high) / 2;
    if (strcmp(b->kernel[mid].hash, hash) < 0) low = mid + 1;
    else high = mid;
  }
  return low;
}

static const qn_kernel *find_kernel(const qn_pack_builder *b, const char *hash) {
  size_t i = kernel_place(b, hash);
  return i < b->n_kernels && !strcmp(b->kernel[i].hash, hash) ? &b->kernel[i] : NULL;
}

qn_status qn__pack_add_kernel(qn_pack_builder *b, const qn_kernel *k) {
  QN_TRY(qn__kernel_check(k));
  if (k->size && !k->image) return qn__fail(QN_E_ARG, "kernel '%s': no image", k->name);
  if (find_kernel(b, k->hash)) return QN_OK;
  return insert((void **)&b->kernel, &b->n_kernels, QN_PACK_MAX_KERNELS, kernel_place(b, k->hash), k, sizeof *k);
}

/* A kernel that a plan names. */
static qn_status find_named(const qn_pack_builder *b, const qn_plan *p, const char *hash, const qn_kernel **out) {
  const qn_kernel *k = *out = find_kernel(b, hash);
  if (!k) return qn__fail(QN_E_ARG, "plan of '%s': kernel %s has not been added", p->problem.spelling, hash);
  if (strcmp(k->target, b->device[p->device].target))
    return qn__fail(QN_E_ARG, "plan of '%s': kernel '%s' is for %s", p->problem.spelling, k->name, k->target);
  return QN_OK;
}

qn_status qn__pack_add_plan(qn_pack_builder *b, const qn_plan *p) {
  QN_TRY(qn__plan_check(p));
  if (p->device >= b->n_devices)
    return qn__fail(QN_E_ARG, "plan of '%s': device %u of %zu", p->problem.spelling, p->device, b->n_devices);
  for (uint32_t i = 0; i < p->n_ranges; i++) {
    const qn_kernel *k;
    QN_TRY(find_named(b, p, p->range[i].variant, &k));
    if (k->size) continue;
    QN_TRY(find_named(b, p, p->range[i].runner_up, &k));
    if (!k->size) return qn__fail(QN_E_ARG, "plan of '%s': a function as runner-up", p->problem.spelling);
  }
  for (size_t i = 0; i < b->n_plans; i++)
    if (!strcmp(b->plan[i].problem.spelling, p->problem.spelling) && b->plan[i].kind == p->kind &&
        b->plan[i].device == p->device)
      return qn__fail(QN_E_ARG, "plan of '%s' added twice", p->problem.spelling);
  return insert((void **)&b->plan, &b->n_plans, QN_PACK_MAX_PLANS, b->n_plans, p, sizeof *p);
}

/* ---- Putting together -------------------------------------------------------------------------------------------- */

/* A section as it grows, and its records. */
typedef struct section {
  uint8_t *data;
  size_t size;
  uint32_t count;
} section;

static qn_status append(section *s, const void *data, size_t size) {
  uint8_t *grown = realloc(s->data, s->size + size + 1);
  if (!grown) return qn__fail(QN_E_NOMEM, "pack section of %zu bytes", s->size + size);
  if (size) memcpy(grown + s->size, data, size);
  s->data = grown;
  s->size += size;
  return QN_OK;
}

static qn_status pad(section *s) {
  static const uint8_t zeros[QN_PACK_ALIGN];
  return append(s, zeros, (QN_PACK_ALIGN - s->size % QN_PACK_ALIGN) % QN_PACK_ALIGN);
}

static const char no_memory[] = "out of memory";

static void put(qn_coder *c, void *p, size_t n) {
  if (n > c->size - c->at) {
    size_t size = (c->size + n) * 2;
    uint8_t *data = realloc(c->data, size);
    if (!data) {
      c->error = no_memory;
      return;
    }
    c->data = data, c->size = size;
  }
  memcpy(c->data + c->at, p, n);
  c->at += n;
}

/* Append a coded record; the coder's memory is taken over. */
static qn_status append_record(section *s, qn_coder *c) {
  qn_status status = c->error == no_memory ? QN_E_NOMEM : QN_E_FORMAT;
  status = c->error ? qn__fail(status, "pack record: %s", c->error) : append(s, c->data, c->at);
  free(c->data);
  s->count++;
  return status;
}

static qn_status put_devices(const qn_pack_builder *b, section *s) {
  for (size_t i = 0; i < b->n_devices; i++) {
    qn_coder c = {.bytes = put};
    qn__code_device(&c, &b->device[i]);
    QN_TRY(append_record(&s[QN_PACK_DEVICES], &c));
  }
  return QN_OK;
}

/* The index entry of a plan. */
static void plan_entry(const qn_plan *p, uint64_t offset, uint64_t size, uint8_t e[QN_PACK_PLAN_ENTRY]) {
  const uint32_t types[] = {p->problem.act, p->problem.out, p->problem.x};
  const uint32_t rest[] = {(uint32_t)p->problem.n, (uint32_t)p->problem.k, p->kind, p->device,
                           (uint32_t)p->problem.experts};
  memset(e, 0, QN_PACK_PLAN_ENTRY);
  memcpy(e, p->problem.format, strlen(p->problem.format));
  for (size_t i = 0; i < QN_COUNT(types); i++) qn__put32(e + 64 + 4 * i, types[i]);
  memcpy(e + 76, p->problem.epilogue, QN_EPILOGUE_STEPS);
  for (size_t i = 0; i < QN_COUNT(rest); i++) qn__put32(e + 84 + 4 * i, rest[i]);
  qn__put64(e + 104, offset);
  qn__put64(e + 112, size);
}

static int by_plan(const void *a, const void *b) {
  uint8_t x[QN_PACK_PLAN_ENTRY], y[QN_PACK_PLAN_ENTRY];
  plan_entry(a, 0, 0, x);
  plan_entry(b, 0, 0, y);
  return qn__pack_plan_order(x, y);
}

static qn_status put_plans(qn_pack_builder *b, section *s) {
  if (b->n_plans) qsort(b->plan, b->n_plans, sizeof *b->plan, by_plan);
  for (size_t i = 0; i < b->n_plans; i++) {
    uint8_t e[QN_PACK_PLAN_ENTRY];
    size_t at = s[QN_PACK_PLAN].size;
    qn_coder c = {.bytes = put};
    qn__code_plan(&c, &b->plan[i]);
    QN_TRY(append_record(&s[QN_PACK_PLAN], &c));
    plan_entry(&b->plan[i], at, s[QN_PACK_PLAN].size - at, e);
    QN_TRY(append(&s[QN_PACK_PLANS], e, sizeof e));
    s[QN_PACK_PLANS].count++;
  }
  return QN_OK;
}

/* Where the image of kernel i is: with an earlier kernel of equal image, or new at the end. */
static qn_status put_image(const qn_pack_builder *b, size_t i, uint64_t *place, section *s) {
  const qn_kernel *k = &b->kernel[i];
  if (!k->size) return QN_OK; /* a function */
  for (size_t j = 0; j < i; j++)
    if (b->kernel[j].size == k->size && !memcmp(b->kernel[j].image, k->image, k->size)) {
      place[i] = place[j];
      return QN_OK;
    }
  place[i] = s->size;
  s->count++;
  QN_TRY(append(s, k->image, k->size));
  return pad(s);
}

static qn_status put_kernels(qn_pack_builder *b, section *s, uint64_t *place) {
  for (size_t i = 0; i < b->n_kernels; i++) {
    qn_kernel *k = &b->kernel[i];
    uint8_t e[QN_PACK_KERNEL_ENTRY];
    size_t at = s[QN_PACK_KERNEL].size;
    qn_coder c = {.bytes = put};
    qn__code_kernel(&c, k);
    QN_TRY(append_record(&s[QN_PACK_KERNEL], &c));
    QN_TRY(put_image(b, i, place, &s[QN_PACK_IMAGES]));
    memcpy(e, k->hash, 32);
    qn__put64(e + 32, at);
    qn__put64(e + 40, s[QN_PACK_KERNEL].size - at);
    qn__put64(e + 48, place[i]);
    qn__put64(e + 56, k->size);
    QN_TRY(append(&s[QN_PACK_KERNELS], e, sizeof e));
    s[QN_PACK_KERNELS].count++;
  }
  return QN_OK;
}

/* Header and section table in front of the sections. */
static qn_status put_head(section *s, section *file) {
  uint8_t head[QN_PACK_HEADER + QN_PACK_TABLE] = {0}, *table = head + QN_PACK_HEADER;
  size_t at = sizeof head;
  for (uint32_t i = 0; i < QN_PACK_SECTIONS; i++) {
    uint8_t *e = table + i * QN_PACK_ENTRY;
    QN_TRY(pad(&s[i]));
    qn__put32(e, i + 1);
    qn__put32(e + 4, s[i].count);
    qn__put64(e + 8, at);
    qn__put64(e + 16, s[i].size);
    qn__hash128(s[i].data, s[i].size, e + 24);
    at += s[i].size;
  }
  memcpy(head, QN_PACK_MAGIC, 8);
  qn__put32(head + 8, QN_PACK_VERSION);
  qn__put32(head + 12, QN_PACK_BYTE_ORDER);
  qn__put64(head + 16, at);
  qn__put32(head + 24, QN_PACK_SECTIONS);
  qn__hash128(table, QN_PACK_TABLE, head + 32);
  qn__hash128(head, 48, head + 48);
  return append(file, head, sizeof head);
}

static qn_status put_all(qn_pack_builder *b, section *s, section *file) {
  uint64_t *place = calloc(b->n_kernels + 1, sizeof *place);
  if (!place) return qn__fail(QN_E_NOMEM, "pack of %zu kernels", b->n_kernels);
  qn_status status = put_devices(b, s);
  if (!status) status = put_plans(b, s);
  if (!status) status = put_kernels(b, s, place);
  if (!status) status = put_head(s, file);
  for (int i = 0; i < QN_PACK_SECTIONS && !status; i++) status = append(file, s[i].data, s[i].size);
  free(place);
  return status;
}

qn_status qn__pack_write(qn_pack_builder *b, const char *path) {
  section s[QN_PACK_SECTIONS] = {{0}}, file = {0};
  qn_status status = put_all(b, s, &file);
  if (!status) status = qn__file_replace(path, file.data, file.size);
  for (int i = 0; i < QN_PACK_SECTIONS; i++) free(s[i].data);
  free(file.data);
  return status;
}
