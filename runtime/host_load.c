/* host_load.c - a loader for the smallest useful kind of ELF file.
 *
 * Segments are copied into one anonymous mapping, RELATIVE relocations are applied, pages get their protection. What a
 * real dynamic linker would also do (symbols of other objects, lazy binding, initialisers, thread-local storage) is
 * refused by name: a kernel has no need of it. Layout and names: System V gABI chapters 4 and 5, GNU hash sections. */
#include "host_load.h"
#include "fail.h"
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined __x86_64__
#define MACHINE EM_X86_64
#define RELATIVE R_X86_64_RELATIVE
#else
#define MACHINE EM_AARCH64
#define RELATIVE R_AARCH64_RELATIVE
#endif

#define MAX_SPAN (UINT64_C(1) << 26)
#define MAX_SEGMENTS 64

struct qn_host_image {
  const qn_allocator *heap;
  uint8_t *base;
  size_t span;
  const Elf64_Sym *symbol;
  size_t n_symbols;
  const char *string;
  size_t string_size;
};

/* The file while it is being loaded. */
typedef struct elf {
  const uint8_t *data;
  size_t size;
  Elf64_Ehdr head;
  Elf64_Phdr segment[MAX_SEGMENTS];
} elf;

#define BAD(...) qn__fail(QN_E_FORMAT, "host kernel: " __VA_ARGS__)

/* ---- Headers ----------------------------------------------------------------------------------------------------- */

static qn_status read_head(elf *e, const void *image, size_t size) {
  static const uint8_t ident[] = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT};
  *e = (elf){.data = image, .size = size};
  if (size < sizeof e->head) return BAD("%zu bytes are no ELF file", size);
  memcpy(&e->head, image, sizeof e->head);
  if (memcmp(e->head.e_ident, ident, sizeof ident)) return BAD("not a little-endian 64-bit ELF file");
  if (e->head.e_machine != MACHINE)
    return qn__fail(QN_E_DEVICE, "host kernel: made for ELF machine %u, this CPU is %u", e->head.e_machine, MACHINE);
  if (e->head.e_type != ET_DYN) return BAD("ELF type %u is not a shared object", e->head.e_type);
  if (e->head.e_phentsize != sizeof *e->segment || e->head.e_phnum < 1 || e->head.e_phnum > MAX_SEGMENTS)
    return BAD("%u program headers of %u bytes", e->head.e_phnum, e->head.e_phentsize);
  if (e->head.e_phoff > size || size - e->head.e_phoff < e->head.e_phnum * sizeof *e->segment)
    return BAD("program headers at %llu are beyond the end", (unsigned long long)e->head.e_phoff);
  memcpy(e->segment, e->data + e->head.e_phoff, e->head.e_phnum * sizeof *e->segment);
  return QN_OK;
}

static int protection(const Elf64_Phdr *s) {
  return (s->p_flags & PF_R ? PROT_READ : 0) | (s->p_flags & PF_W ? PROT_WRITE : 0) |
         (s->p_flags & PF_X ? PROT_EXEC : 0);
}

static qn_status check_segments(const elf *e, size_t page, size_t *span) {
  *span = 0;
  for (int i = 0; i < e->head.e_phnum; i++) {
    const Elf64_Phdr *s = &e->segment[i];
    if (s->p_type == PT_TLS) return BAD("thread-local data");
    if (s->p_type == PT_INTERP) return BAD("an interpreter");
    if (s->p_type != PT_LOAD) continue;
    if (s->p_offset > e->size || s->p_filesz > e->size - s->p_offset || s->p_filesz > s->p_memsz)
      return BAD("segment %d is beyond the end", i);
    if (s->p_vaddr > MAX_SPAN || s->p_memsz > MAX_SPAN)
      return BAD("segment %d is larger than %llu bytes", i, (unsigned long long)MAX_SPAN);
    if ((s->p_flags & (PF_W | PF_X)) == (PF_W | PF_X)) return BAD("segment %d is writable and executable", i);
    if (!(s->p_flags & PF_W) && s->p_filesz != s->p_memsz) return BAD("segment %d has zeros that stay zeros", i);
    if (s->p_vaddr / page * page < *span) return BAD("segment %d shares a page with the one before", i);
    *span = (s->p_vaddr + s->p_memsz + page - 1) / page * page;
  }
  return *span ? QN_OK : BAD("no segment to load");
}

qn_status qn__host_image_check(const void *image, size_t size) {
  elf e;
  size_t span;
  QN_TRY(read_head(&e, image, size));
  return check_segments(&e, (size_t)sysconf(_SC_PAGESIZE), &span);
}

/* ---- Dynamic section --------------------------------------------------------------------------------------------- */

/* The tags that are understood, and what there is that is not. */
typedef struct dynamic {
  const char *refused;
  uint64_t symbols, strings, string_size, hash, gnu_hash, rela, rela_size;
} dynamic;

/* `size` bytes at address `at`; NULL if they are not all in one segment which has the flags `yes` and not `no`. What is
 * checked once stays as it was: tables are taken from segments that can be read only, and relocations change others. */
static void *inside(const elf *e, const qn_host_image *h, uint64_t at, uint64_t size, unsigned yes, unsigned no) {
  for (int i = 0; i < e->head.e_phnum; i++) {
    const Elf64_Phdr *s = &e->segment[i];
    if (s->p_type == PT_LOAD && (s->p_flags & yes) == yes && !(s->p_flags & no) && at >= s->p_vaddr &&
        at - s->p_vaddr <= s->p_memsz && size <= s->p_memsz - (at - s->p_vaddr))
      return h->base + at;
  }
  return NULL;
}

static const void *table(const elf *e, const qn_host_image *h, uint64_t at, uint64_t size) {
  return inside(e, h, at, size, PF_R, PF_W);
}

static void read_tag(dynamic *d, const Elf64_Dyn *t) {
  switch (t->d_tag) {
  case DT_SYMTAB:
    d->symbols = t->d_un.d_ptr;
    break;
  case DT_STRTAB:
    d->strings = t->d_un.d_ptr;
    break;
  case DT_STRSZ:
    d->string_size = t->d_un.d_val;
    break;
  case DT_HASH:
    d->hash = t->d_un.d_ptr;
    break;
  case DT_GNU_HASH:
    d->gnu_hash = t->d_un.d_ptr;
    break;
  case DT_RELA:
    d->rela = t->d_un.d_ptr;
    break;
  case DT_RELASZ:
    d->rela_size = t->d_un.d_val;
    break;
  case DT_NEEDED:
    d->refused = "it needs a library";
    break;
  case DT_REL:
  case DT_JMPREL:
  case DT_TEXTREL:
  case 36: /* DT_RELR */
    d->refused = "relocations of another kind than RELA";
    break;
  case DT_INIT:
  case DT_FINI:
  case DT_INIT_ARRAY:
  case DT_FINI_ARRAY:
    d->refused = "initialisers or finalisers";
    break;
  default:
    break;
  }
}

static qn_status read_dynamic(const elf *e, const qn_host_image *h, dynamic *d) {
  *d = (dynamic){0};
  for (int i = 0; i < e->head.e_phnum; i++) {
    const Elf64_Phdr *s = &e->segment[i];
    if (s->p_type != PT_DYNAMIC) continue;
    if (!inside(e, h, s->p_vaddr, s->p_memsz, 0, 0)) return BAD("dynamic section beyond the end");
    for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= s->p_memsz; at += sizeof(Elf64_Dyn)) {
      Elf64_Dyn t;
      memcpy(&t, h->base + s->p_vaddr + at, sizeof t);
      if (t.d_tag == DT_NULL) break;
      read_tag(d, &t);
    }
  }
  return d->symbols && d->strings ? QN_OK : BAD("no dynamic symbols");
}

/* Number of symbols, from whichever hash table is there; 0: damaged. In GNU's, the highest chain ends the table. */
static size_t count_symbols(const elf *e, const qn_host_image *h, const dynamic *d) {
  const uint32_t *t;
  if (d->hash) return !(d->hash & 3) && (t = table(e, h, d->hash, 8)) ? t[1] : 0;
  if (!d->gnu_hash || d->gnu_hash & 7 || !(t = table(e, h, d->gnu_hash, 16))) return 0;
  uint64_t buckets = t[0], first = t[1], at = d->gnu_hash + 16 + (uint64_t)t[2] * 8, last = 0;
  const uint32_t *bucket = table(e, h, at, buckets * 4), *chain;
  if (!bucket) return 0;
  for (uint64_t i = 0; i < buckets; i++) last = bucket[i] > last ? bucket[i] : last;
  if (last < first) return first;
  for (at += buckets * 4;; last++) {
    if (!(chain = table(e, h, at + (last - first) * 4, 4))) return 0;
    if (*chain & 1) return last + 1;
  }
}

static qn_status read_symbols(const elf *e, qn_host_image *h, const dynamic *d) {
  h->n_symbols = count_symbols(e, h, d);
  h->symbol = d->symbols & 7 ? NULL : table(e, h, d->symbols, (uint64_t)h->n_symbols * sizeof *h->symbol);
  h->string = table(e, h, d->strings, d->string_size);
  h->string_size = d->string_size;
  if (!h->n_symbols || !h->symbol || !h->string || !h->string_size || h->string[h->string_size - 1])
    return BAD("symbol table damaged");
  for (size_t i = 1; i < h->n_symbols; i++) {
    if (h->symbol[i].st_name >= h->string_size) return BAD("symbol %zu has no name", i);
    if (h->symbol[i].st_shndx == SHN_UNDEF) return BAD("undefined symbol '%s'", h->string + h->symbol[i].st_name);
    if (ELF64_ST_TYPE(h->symbol[i].st_info) == STT_FUNC && !inside(e, h, h->symbol[i].st_value, 1, PF_X, 0))
      return BAD("function '%s' is no code", h->string + h->symbol[i].st_name);
  }
  return QN_OK;
}

static qn_status relocate(const elf *e, const qn_host_image *h, const dynamic *d) {
  if (d->rela_size && (!table(e, h, d->rela, d->rela_size) || d->rela_size % sizeof(Elf64_Rela)))
    return BAD("relocations damaged");
  for (uint64_t at = 0; at < d->rela_size; at += sizeof(Elf64_Rela)) {
    Elf64_Rela r;
    memcpy(&r, h->base + d->rela + at, sizeof r);
    void *target = inside(e, h, r.r_offset, 8, PF_W, 0);
    if (ELF64_R_TYPE(r.r_info) != RELATIVE)
      return BAD("relocation of type %u; only relative ones are applied", (unsigned)ELF64_R_TYPE(r.r_info));
    if (!target || (uint64_t)r.r_addend > h->span) return BAD("relocation of what is no data of the image");
    memcpy(target, &(uint64_t){(uint64_t)(uintptr_t)h->base + (uint64_t)r.r_addend}, 8);
  }
  return QN_OK;
}

/* ---- Loading ----------------------------------------------------------------------------------------------------- */

static qn_status protect(const elf *e, const qn_host_image *h, size_t page) {
  for (int i = 0; i < e->head.e_phnum; i++) {
    const Elf64_Phdr *s = &e->segment[i];
    if (s->p_type != PT_LOAD || !s->p_memsz) continue;
    uint64_t begin = s->p_vaddr / page * page, end = s->p_vaddr + s->p_memsz;
    if (mprotect(h->base + begin, end - begin, protection(s)))
      return qn__fail(QN_E_NOMEM, "host kernel: mprotect: %s", strerror(errno));
    if (s->p_flags & PF_X) __builtin___clear_cache((char *)h->base + begin, (char *)h->base + end);
  }
  return QN_OK;
}

static qn_status load(const elf *e, qn_host_image *h, size_t page) {
  dynamic d;
  for (int i = 0; i < e->head.e_phnum; i++)
    if (e->segment[i].p_type == PT_LOAD)
      memcpy(h->base + e->segment[i].p_vaddr, e->data + e->segment[i].p_offset, e->segment[i].p_filesz);
  QN_TRY(read_dynamic(e, h, &d));
  QN_TRY(read_symbols(e, h, &d)); /* first: it names what is undefined */
  if (d.refused) return BAD("%s", d.refused);
  QN_TRY(relocate(e, h, &d));
  return protect(e, h, page);
}

qn_status qn__host_image_open(const qn_allocator *heap, const void *image, size_t size, qn_host_image **out) {
  *out = NULL;
  elf e;
  size_t page = (size_t)sysconf(_SC_PAGESIZE), span;
  QN_TRY(read_head(&e, image, size));
  QN_TRY(check_segments(&e, page, &span));
  qn_host_image *h = qn__alloc_zero(heap, sizeof *h);
  void *base = h ? mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
  if (base == MAP_FAILED) {
    qn__free(heap, h, sizeof *h);
    return qn__fail(QN_E_NOMEM, "host kernel: no memory for %zu bytes", span);
  }
  h->heap = heap, h->base = base, h->span = span;
  qn_status s = load(&e, h, page);
  if (s) qn__host_image_close(h);
  else *out = h;
  return s;
}

void qn__host_image_close(qn_host_image *h) {
  if (!h) return;
  munmap(h->base, h->span);
  qn__free(h->heap, h, sizeof *h);
}

qn_status qn__host_image_entry(const qn_host_image *h, const char *name, void **fn) {
  for (size_t i = 1; i < h->n_symbols; i++) {
    const Elf64_Sym *s = &h->symbol[i];
    if (ELF64_ST_TYPE(s->st_info) == STT_FUNC && !strcmp(h->string + s->st_name, name))
      return *fn = h->base + s->st_value, QN_OK;
  }
  return qn__fail(QN_E_NO_KERNEL, "host kernel: no function '%s'", name);
}
