/* elf_image.c - sections, symbols and resource records of ELF64 images. Every offset is checked against the image.
 *
 * Cubins: section .nv.info holds records {u8 format, u8 attribute, u16 size, payload}; attribute 0x2f is the register
 * count and 0x11 the frame size of a function, both as {u32 symbol, u32 value}. .nv.shared.KERNEL is static shared
 * memory, .text.KERNEL the instructions, 16 bytes each, whose low 12 bits are the opcode. From sm_90 on the driver's
 * own 1024 bytes are counted in .nv.shared. Source: sections and records as observed in the output of ptxas 13.0. */
#include "elf_image.h"
#include "compile.h"
#include "fail.h"
#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct elf {
  const unsigned char *base;
  size_t size;
  const Elf64_Ehdr *header;
  const Elf64_Shdr *section;
} elf;

static const void *at(const elf *e, uint64_t offset, uint64_t bytes) {
  return offset <= e->size && bytes <= e->size - offset ? e->base + offset : NULL;
}

static qn_status elf_open(elf *e, const void *image, size_t size) {
  *e = (elf){.base = image, .size = size, .header = image};
  if (size < sizeof(Elf64_Ehdr) || memcmp(image, ELFMAG, SELFMAG) || e->header->e_ident[EI_CLASS] != ELFCLASS64)
    return qn__fail(QN_E_FORMAT, "image of %zu bytes is no ELF64 file", size);
  if ((uintptr_t)image % 8) return qn__fail(QN_E_FORMAT, "ELF image is not aligned to 8 bytes");
  if (e->header->e_shnum && e->header->e_shentsize != sizeof(Elf64_Shdr))
    return qn__fail(QN_E_FORMAT, "ELF section headers of %u bytes", e->header->e_shentsize);
  e->section = at(e, e->header->e_shoff, (uint64_t)e->header->e_shnum * sizeof(Elf64_Shdr));
  if (!e->section || e->header->e_shoff % 8) return qn__fail(QN_E_FORMAT, "ELF section table is outside the image");
  return QN_OK;
}

/* The section's bytes; NULL where they are not in the image. */
static const unsigned char *contents(const elf *e, const Elf64_Shdr *s) {
  return s->sh_type == SHT_NOBITS ? NULL : at(e, s->sh_offset, s->sh_size);
}

static qn_status cubin_open(elf *e, const void *image, size_t size) {
  enum { em_cuda = 190 };
  QN_TRY(elf_open(e, image, size));
  if (e->header->e_machine != em_cuda)
    return qn__fail(QN_E_FORMAT, "ELF machine %u is not CUDA's", e->header->e_machine);
  return QN_OK;
}

/* A name in string table section `table`; "" where it is out of bounds. */
static const char *text_at(const elf *e, uint32_t table, uint32_t offset) {
  if (table >= e->header->e_shnum) return "";
  const Elf64_Shdr *s = &e->section[table];
  const char *p = (const char *)contents(e, s);
  return p && offset < s->sh_size && memchr(p + offset, 0, s->sh_size - offset) ? p + offset : "";
}

static const char *section_name(const elf *e, const Elf64_Shdr *s) {
  return text_at(e, e->header->e_shstrndx, s->sh_name);
}

qn_status qn__elf_no_undefined(const void *image, size_t size, const char *name) {
  elf e;
  QN_TRY(elf_open(&e, image, size));
  for (int i = 0; i < e.header->e_shnum; i++) {
    const Elf64_Shdr *s = &e.section[i];
    if (s->sh_type != SHT_DYNSYM) continue;
    const unsigned char *p = contents(&e, s);
    if (!p) return qn__fail(QN_E_FORMAT, "%s: symbol table is outside the image", name);
    for (size_t j = 1; j < s->sh_size / sizeof(Elf64_Sym); j++) {
      Elf64_Sym symbol;
      memcpy(&symbol, p + j * sizeof symbol, sizeof symbol);
      if (symbol.st_shndx == SHN_UNDEF)
        return qn__fail(QN_E_COMPILE, "%s: the kernel needs %s, but host kernels link nothing", name,
                        text_at(&e, s->sh_link, symbol.st_name));
    }
  }
  return QN_OK;
}

static int larger(int a, uint64_t b) { return b > (uint64_t)a ? (int)b : a; }

static void read_records(const unsigned char *p, uint64_t size, qn_cubin_info *out) {
  enum { sized = 4, frame_size = 0x11, register_count = 0x2f };
  while (size >= 4) {
    uint16_t bytes;
    uint32_t value;
    memcpy(&bytes, p + 2, 2);
    if (p[0] != sized) bytes = 0; /* the value is in the header itself */
    if (bytes > size - 4) return;
    if (bytes >= 8) {
      memcpy(&value, p + 8, 4);
      if (p[1] == register_count) out->registers = larger(out->registers, value);
      if (p[1] == frame_size) out->frame = larger(out->frame, value);
    }
    p += 4 + bytes;
    size -= 4u + bytes;
  }
}

qn_status qn__cubin_info(const void *image, size_t size, qn_cubin_info *out) {
  elf e;
  *out = (qn_cubin_info){0};
  QN_TRY(cubin_open(&e, image, size));
  for (int i = 0; i < e.header->e_shnum; i++) {
    const Elf64_Shdr *s = &e.section[i];
    const char *name = section_name(&e, s);
    if (!strncmp(name, ".text.", 6)) out->kernels++;
    if (!strncmp(name, ".nv.shared.", 11)) out->shared = larger(out->shared, s->sh_size);
    if (!strcmp(name, ".nv.info")) {
      const unsigned char *p = contents(&e, s);
      if (!p) return qn__fail(QN_E_FORMAT, "cubin: .nv.info is outside the image");
      read_records(p, s->sh_size, out);
    }
  }
  return QN_OK;
}

qn_status qn__cubin_each(const void *image, size_t size,
                         void (*each)(void *ud, const char *kernel, unsigned opcode, const uint64_t word[2]),
                         void *ud) {
  elf e;
  QN_TRY(cubin_open(&e, image, size));
  for (int i = 0; i < e.header->e_shnum; i++) {
    const Elf64_Shdr *s = &e.section[i];
    const char *name = section_name(&e, s);
    if (strncmp(name, ".text.", 6)) continue;
    const unsigned char *code = contents(&e, s);
    if (!code) return qn__fail(QN_E_FORMAT, "cubin: %s is outside the image", name);
    for (uint64_t p = 0; p + 16 <= s->sh_size; p += 16) {
      uint64_t word[2];
      memcpy(word, code + p, 16);
      each(ud, name + 6, word[0] & 0xfff, word);
    }
  }
  return QN_OK;
}
