/* pack_read.c - opens packs. The order of checks matters: the file's size, then checksums, then indices, then records,
 * then what records say of one another. A damaged file fails at a checksum; the checks behind it are for files that a
 * faulty or hostile writer has summed correctly. */
#include "pack_read.h"
#include "fail.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct section {
  const uint8_t *data;
  uint64_t size;
  uint32_t count;
} section;

struct qn_pack {
  const qn_allocator *heap;
  const uint8_t *map;
  size_t size;
  section section[QN_PACK_SECTIONS];
  char hash[2 * QN_HASH_BYTES + 1];
};

static const char *const section_name[QN_PACK_SECTIONS] = {"devices",          "index of plans", "plans",
                                                           "index of kernels", "kernels",        "images"};

#define BAD(...) qn__fail(QN_E_FORMAT, "pack: " __VA_ARGS__)

/* ---- Header and sections ----------------------------------------------------------------------------------------- */

static bool sum_is(const void *data, size_t size, const uint8_t *want) {
  uint8_t have[QN_HASH_BYTES];
  qn__hash128(data, size, have);
  return !memcmp(have, want, sizeof have);
}

static bool all_zero(const uint8_t *p, size_t n) {
  while (n && !*p) p++, n--;
  return !n;
}

static qn_status check_header(const qn_pack *p) {
  const uint8_t *h = p->map;
  if (p->size < QN_PACK_HEADER + QN_PACK_TABLE) return BAD("%zu bytes are too few", p->size);
  if (memcmp(h, QN_PACK_MAGIC, 8)) return BAD("not a pack of Quernel");
  uint32_t version = qn__get32(h + 8);
  if (version != QN_PACK_VERSION)
    return BAD("version %u, this library reads version %d: %s", version, QN_PACK_VERSION,
               version > QN_PACK_VERSION
                   ? "take a newer library"
                   : "make it anew with `quernel tune`, which does not do twice what the store knows");
  if (qn__get32(h + 12) != QN_PACK_BYTE_ORDER) return BAD("byte order mark %08x", qn__get32(h + 12));
  if (!sum_is(h, 48, h + 48)) return BAD("the header is damaged");
  if (qn__get64(h + 16) != p->size)
    return BAD("%zu bytes of %llu are there: the file is not whole", p->size, (unsigned long long)qn__get64(h + 16));
  if (qn__get32(h + 24) != QN_PACK_SECTIONS || qn__get32(h + 28))
    return BAD("%u sections, version %d has %d", qn__get32(h + 24), QN_PACK_VERSION, QN_PACK_SECTIONS);
  if (!sum_is(h + QN_PACK_HEADER, QN_PACK_TABLE, h + 32)) return BAD("the section table is damaged");
  return QN_OK;
}

static qn_status check_sections(qn_pack *p) {
  uint64_t at = QN_PACK_HEADER + QN_PACK_TABLE;
  for (uint32_t i = 0; i < QN_PACK_SECTIONS; i++) {
    const uint8_t *e = p->map + QN_PACK_HEADER + i * QN_PACK_ENTRY;
    uint64_t size = qn__get64(e + 16);
    if (qn__get32(e) != i + 1 || qn__get64(e + 8) != at || size % QN_PACK_ALIGN || size > p->size - at ||
        qn__get64(e + 40))
      return BAD("section %u (%s) is out of place", i + 1, section_name[i]);
    p->section[i] = (section){p->map + at, size, qn__get32(e + 4)};
    if (!sum_is(p->map + at, size, e + 24)) return BAD("section %u (%s) is damaged", i + 1, section_name[i]);
    at += size;
  }
  return at == p->size ? QN_OK : BAD("%llu bytes behind the last section", (unsigned long long)(p->size - at));
}

/* ---- Records ----------------------------------------------------------------------------------------------------- */

static void take(qn_coder *c, void *p, size_t n) {
  if (n > c->size - c->at) {
    c->error = "record ends early";
    return;
  }
  memcpy(p, c->data + c->at, n);
  c->at += n;
}

static qn_coder reader(const uint8_t *data, size_t size) {
  return (qn_coder){.bytes = take, .data = (uint8_t *)data, .size = size};
}

static const uint8_t *plan_entry(const qn_pack *p, uint32_t i) {
  return p->section[QN_PACK_PLANS].data + (size_t)i * QN_PACK_PLAN_ENTRY;
}

static const uint8_t *kernel_entry(const qn_pack *p, uint32_t i) {
  return p->section[QN_PACK_KERNELS].data + (size_t)i * QN_PACK_KERNEL_ENTRY;
}

static bool inside(const section *s, uint64_t at, uint64_t size) { return at <= s->size && size <= s->size - at; }

/* Read a record that the index places at `at`; all of it must be used. */
static qn_status check_record(const section *s, uint64_t at, uint64_t size, const char *what, uint32_t i,
                              void (*code)(qn_coder *, void *), void *out) {
  if (!inside(s, at, size)) return BAD("%s %u lies outside its section", what, i);
  qn_coder c = reader(s->data + at, size);
  code(&c, out);
  if (!c.error && c.at != size) c.error = "record is too long";
  return c.error ? BAD("%s %u: %s", what, i, c.error) : QN_OK;
}

static void code_plan(qn_coder *c, void *p) { qn__code_plan(c, p); }
static void code_kernel(qn_coder *c, void *k) { qn__code_kernel(c, k); }

static qn_status check_count(int kind, uint32_t count, uint32_t most) {
  return count <= most ? QN_OK : BAD("%u entries in its %s, limit %u", count, section_name[kind], most);
}

static qn_status check_devices(const qn_pack *p) {
  const section *s = &p->section[QN_PACK_DEVICES];
  qn_coder c = reader(s->data, s->size);
  QN_TRY(check_count(QN_PACK_DEVICES, s->count, QN_PACK_MAX_DEVICES));
  for (uint32_t i = 0; i < s->count && !c.error; i++) {
    qn_pack_device d = {0};
    qn__code_device(&c, &d);
    if (!c.error) QN_TRY(qn__pack_device_check(&d));
  }
  if (!c.error && !all_zero(s->data + c.at, s->size - c.at)) c.error = "more than was counted";
  return c.error ? BAD("devices: %s", c.error) : QN_OK;
}

static qn_status check_index(const qn_pack *p, int kind, uint32_t entry, uint32_t most) {
  const section *s = &p->section[kind];
  QN_TRY(check_count(kind, s->count, most));
  if ((uint64_t)s->count * entry > s->size) return BAD("%s: %u entries do not fit in it", section_name[kind], s->count);
  return QN_OK;
}

static qn_status check_kernels(const qn_pack *p) {
  const section *images = &p->section[QN_PACK_IMAGES];
  QN_TRY(check_index(p, QN_PACK_KERNELS, QN_PACK_KERNEL_ENTRY, QN_PACK_MAX_KERNELS));
  for (uint32_t i = 0; i < qn__pack_kernels(p); i++) {
    const uint8_t *e = kernel_entry(p, i);
    qn_kernel k = {0};
    QN_TRY(
        check_record(&p->section[QN_PACK_KERNEL], qn__get64(e + 32), qn__get64(e + 40), "kernel", i, code_kernel, &k));
    k.size = qn__get64(e + 56);
    if (!inside(images, qn__get64(e + 48), k.size) || qn__get64(e + 48) % QN_PACK_ALIGN)
      return BAD("image of kernel %u lies outside its section", i);
    if (memcmp(k.hash, e, 32) || (i && memcmp(kernel_entry(p, i - 1), e, 32) >= 0))
      return BAD("index of kernels: entry %u is out of order", i);
    QN_TRY(qn__kernel_check(&k));
  }
  return QN_OK;
}

/* A kernel that a plan names must be there, and be for its device's target. */
static qn_status check_named(const qn_pack *p, const qn_plan *plan, const char *target, const char *hash,
                             qn_kernel *k) {
  int64_t at = qn__pack_find_kernel(p, hash);
  if (at < 0) return BAD("plan of '%s': kernel %s is not there", plan->problem.spelling, hash);
  qn__pack_kernel(p, (uint32_t)at, k);
  if (strcmp(k->target, target))
    return BAD("plan of '%s': kernel '%s' is for %s, the device is %s", plan->problem.spelling, k->name, k->target,
               target);
  return QN_OK;
}

static qn_status check_ranges(const qn_pack *p, const qn_plan *plan) {
  qn_pack_device d;
  qn__pack_device(p, plan->device, &d);
  for (uint32_t i = 0; i < plan->n_ranges; i++) {
    qn_kernel k;
    QN_TRY(check_named(p, plan, d.target, plan->range[i].variant, &k));
    if (k.size) continue;
    QN_TRY(check_named(p, plan, d.target, plan->range[i].runner_up, &k));
    if (!k.size) return BAD("plan of '%s': '%s' is a function's runner-up", plan->problem.spelling, k.name);
  }
  return QN_OK;
}

static qn_status check_plans(const qn_pack *p) {
  QN_TRY(check_index(p, QN_PACK_PLANS, QN_PACK_PLAN_ENTRY, QN_PACK_MAX_PLANS));
  for (uint32_t i = 0; i < qn__pack_plans(p); i++) {
    const uint8_t *e = plan_entry(p, i);
    qn_plan plan = {0};
    qn_plan_key key;
    QN_TRY(
        check_record(&p->section[QN_PACK_PLAN], qn__get64(e + 104), qn__get64(e + 112), "plan", i, code_plan, &plan));
    QN_TRY(qn__plan_check(&plan));
    if (e[QN_NAME - 1] || !all_zero(e + 120, 8) || (i && qn__pack_plan_order(plan_entry(p, i - 1), e) >= 0))
      return BAD("index of plans: entry %u is out of order", i);
    qn__pack_plan_key(p, i, &key);
    if (strcmp(key.format, plan.format.name) || key.act != plan.problem.act || key.out != plan.problem.out ||
        key.x != plan.problem.x || memcmp(key.epilogue, plan.problem.epilogue, QN_EPILOGUE_STEPS) ||
        key.n != plan.problem.n || key.k != plan.problem.k || key.experts != plan.problem.experts ||
        key.kind != plan.kind || key.device != plan.device || key.device >= qn__pack_devices(p))
      return BAD("index of plans: entry %u is not of its plan", i);
    QN_TRY(check_ranges(p, &plan));
  }
  return QN_OK;
}

/* ---- Opening ----------------------------------------------------------------------------------------------------- */

static qn_status map_file(const char *path, qn_pack *p) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its writer */
  struct stat st;
  if (fd < 0) return qn__fail(qn__errno_status(errno), "pack '%s': %s", path, strerror(errno));
  if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
    close(fd);
    return qn__fail(QN_E_IO, "pack '%s' is not a file", path);
  }
  p->size = (size_t)st.st_size;
  void *map = p->size ? mmap(NULL, p->size, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
  int error = errno;
  close(fd);
  if (map == MAP_FAILED) return qn__fail(qn__errno_status(error), "pack '%s': %s", path, strerror(error));
  p->map = map;
  return QN_OK;
}

static qn_status check(qn_pack *p) {
  QN_TRY(check_header(p));
  QN_TRY(check_sections(p));
  QN_TRY(check_devices(p));
  QN_TRY(check_kernels(p));
  QN_TRY(check_plans(p));
  uint8_t hash[QN_HASH_BYTES];
  memcpy(hash, p->map + 32, sizeof hash);
  qn__hash_text(hash, p->hash);
  return QN_OK;
}

qn_status qn__pack_open(const qn_allocator *heap, const char *path, qn_pack **out) {
  *out = NULL;
  qn_pack *p = qn__alloc_zero(heap, sizeof *p);
  if (!p) return qn__fail(QN_E_NOMEM, "pack '%s'", path);
  p->heap = heap;
  qn_status s = map_file(path, p);
  if (!s && (s = check(p))) s = qn__fail(s == QN_E_NOMEM ? s : QN_E_FORMAT, "'%s': %s", path, qn__errmsg());
  if (s) qn__pack_close(p);
  else *out = p;
  return s;
}

void qn__pack_close(qn_pack *p) {
  if (!p) return;
  if (p->map) munmap((void *)p->map, p->size);
  qn__free(p->heap, p, sizeof *p);
}

/* ---- Reading what was checked ------------------------------------------------------------------------------------ */

const char *qn__pack_hash(const qn_pack *p) { return p->hash; }
uint32_t qn__pack_devices(const qn_pack *p) { return p->section[QN_PACK_DEVICES].count; }
uint32_t qn__pack_plans(const qn_pack *p) { return p->section[QN_PACK_PLANS].count; }
uint32_t qn__pack_kernels(const qn_pack *p) { return p->section[QN_PACK_KERNELS].count; }

void qn__pack_device(const qn_pack *p, uint32_t i, qn_pack_device *out) {
  const section *s = &p->section[QN_PACK_DEVICES];
  qn_coder c = reader(s->data, s->size);
  for (uint32_t j = 0; j <= i; j++) {
    *out = (qn_pack_device){0};
    qn__code_device(&c, out);
  }
}

void qn__pack_plan_key(const qn_pack *p, uint32_t i, qn_plan_key *out) {
  const uint8_t *e = plan_entry(p, i);
  *out = (qn_plan_key){.format = (const char *)e,
                       .act = qn__get32(e + 64),
                       .out = qn__get32(e + 68),
                       .x = qn__get32(e + 72),
                       .epilogue = e + 76,
                       .n = qn__get32(e + 84),
                       .k = qn__get32(e + 88),
                       .kind = qn__get32(e + 92),
                       .device = qn__get32(e + 96),
                       .experts = qn__get32(e + 100)};
}

void qn__pack_plan(const qn_pack *p, uint32_t i, qn_plan *out) {
  const uint8_t *e = plan_entry(p, i);
  qn_coder c = reader(p->section[QN_PACK_PLAN].data + qn__get64(e + 104), qn__get64(e + 112));
  *out = (qn_plan){0};
  qn__code_plan(&c, out);
}

void qn__pack_kernel(const qn_pack *p, uint32_t i, qn_kernel *out) {
  const uint8_t *e = kernel_entry(p, i);
  qn_coder c = reader(p->section[QN_PACK_KERNEL].data + qn__get64(e + 32), qn__get64(e + 40));
  *out = (qn_kernel){0};
  qn__code_kernel(&c, out);
  out->image = p->section[QN_PACK_IMAGES].data + qn__get64(e + 48);
  out->size = qn__get64(e + 56);
}

int64_t qn__pack_find_kernel(const qn_pack *p, const char *hash) {
  int64_t low = 0, high = qn__pack_kernels(p);
  while (low < high) {
    int64_t mid = (low + high) / 2;
    int order = memcmp(kernel_entry(p, (uint32_t)mid), hash, 32);
    if (!order) return mid;
    if (order < 0) low = mid + 1;
    else high = mid;
  }
  return -1;
}
