/* sass.c - main loops, read from the machine code in cubins.
 *
 * Opcodes are the low 12 bits of an instruction of 128 bits; what they mean was read off nvdisasm. How far a branch
 * goes counts words of 32 bits; from sm_90 on its last 8 bits stand apart. */
#include "compile.h"
#include "fail.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct listing {
  uint64_t (*word)[2];
  size_t n, room;
  int sm;
  bool full; /* no memory for more */
} listing;

static void list(void *ud, const char *kernel, unsigned opcode, const uint64_t word[2]) {
  listing *l = ud;
  (void)kernel, (void)opcode;
  if (l->n == l->room) {
    size_t room = l->room ? 2 * l->room : 4096;
    void *more = realloc(l->word, room * sizeof *l->word);
    if (!more) {
      l->full = true;
      return;
    }
    l->word = more, l->room = room;
  }
  memcpy(l->word[l->n++], word, sizeof *l->word);
}

/* Is it a product of tensor cores? What is done stands in the low 9 bits of an opcode, the form of operands above. */
static bool is_product(const listing *l, size_t i) {
  enum { HMMA = 0x03c, IMMA = 0x037, QMMA = 0x07a, OMMA = 0x07f, HGMMA = 0x1f0, IGMMA = 0x1f1, QGMMA = 0x1f3 };
  static const unsigned products[] = {HMMA, IMMA, QMMA, OMMA, HGMMA, IGMMA, QGMMA};
  bool is = false;
  for (size_t k = 0; k < QN_COUNT(products); k++) is |= (l->word[i][0] & 0x1ff) == products[k];
  return is;
}

/* Where branch i goes. */
static int64_t target(const listing *l, size_t i) {
  const uint64_t *w = l->word[i];
  int64_t far = (int64_t)(w[0] >> 34 | w[1] << 30) << 16 >> 16;
  if (l->sm >= 90) far = far * 256 + (int64_t)(w[0] >> 16 & 0xff);
  return (int64_t)i + 1 + far / 4;
}

/* Is the loop that branch i closes, if it closes one, a better one? */
static void consider(const listing *l, size_t i, qn_cubin_loop *best) {
  enum { BRA = 0x947 };
  int64_t back = (l->word[i][0] & 0xfff) == BRA ? target(l, i) : (int64_t)i;
  if (back < 0 || back >= (int64_t)i) return;
  qn_cubin_loop loop = {.first = (int)back, .instructions = (int)((int64_t)i - back) + 1};
  for (size_t k = (size_t)back; k <= i; k++) loop.products += is_product(l, k);
  if (loop.products > best->products ||
      (loop.products == best->products && loop.products && loop.instructions < best->instructions))
    *best = loop;
}

qn_status qn__cubin_loop(const void *image, size_t size, int sm, qn_cubin_loop *out) {
  listing l = {.sm = sm};
  *out = (qn_cubin_loop){0};
  qn_status s = qn__cubin_each(image, size, list, &l);
  if (!s && l.full) s = qn__fail(QN_E_NOMEM, "instructions of a cubin");
  for (size_t i = 0; i < l.n && !s; i++) consider(&l, i, out);
  free(l.word);
  return s;
}
