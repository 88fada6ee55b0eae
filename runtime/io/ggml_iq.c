/* ggml_iq.c - GGUF's I-quants: an entry of a code book gives the magnitudes of 8 weights (iq3: 4) at once, signs stand
 * beside it. Here a weight's code is its magnitude's number with the sign above it, which the tables of the formats
 * iq1, iq2, iq3_xxs and iq3_s follow; serving then needs no code book, and 3 or 4 bits a weight.
 *
 * A scale is an odd integer times the f16 of its super-block. In iq1 the sign is that of a shift by 1/8, for 8 weights
 * at once.
 *
 * Source: ggml-common.h and the dequantize_row_iq* of ggml-quants.c. */
#include "ggml.h"
#include <string.h>

typedef qn__ggml_dest dest;

static void iq1(unsigned entry, bool lower, uint8_t *codes) {
  for (int i = 0; i < 8; i++) codes[i] = (uint8_t)((qn__grid_iq1[entry] >> 2 * i & 3) | lower << 2);
}

static void iq2(uint16_t magnitudes, unsigned signs, uint8_t *codes) {
  for (int i = 0; i < 8; i++) codes[i] = (uint8_t)((magnitudes >> 2 * i & 3) | (signs >> i & 1) << 2);
}

static void iq3(uint16_t magnitudes, unsigned signs, uint8_t *codes) {
  for (int i = 0; i < 4; i++) codes[i] = (uint8_t)((magnitudes >> 3 * i & 7) | (signs >> i & 1) << 3);
}

/* Eight signs in seven bits: an even number of them is set. */
static unsigned even(unsigned signs) {
  signs &= 127;
  return signs | (unsigned)__builtin_parity(signs) << 7;
}

static uint8_t odd(unsigned s) { return (uint8_t)(2 * s + 1); }

static void nibble_scales(const uint8_t *s, int count, const dest *to) {
  for (int i = 0; i < count; i++) ((uint8_t *)to->scale)[i] = odd(s[i / 2] >> 4 * (i % 2) & 15);
}

void qn__iq1_s(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  for (int i = 0; i < 32; i++) {
    unsigned high = qn__le16(b + 34 + i / 4 * 2); /* of 32 weights: four times three bits, a scale, a sign */
    iq1(b[2 + i] | (high >> 3 * (i % 4) & 7) << 8, high >> 15, to->codes + 8 * i);
    ((uint8_t *)to->scale)[i / 4] = odd(high >> 12 & 7);
  }
}

void qn__iq1_m(const uint8_t *b, const dest *to) {
  const uint8_t *s = b + 48; /* four u16: each four scales and, on top, a quarter of d */
  uint16_t d = 0;
  for (int i = 0; i < 4; i++) d |= (uint16_t)(qn__le16(s + 2 * i) >> 12 << 4 * i);
  memcpy(to->d, &d, 2);
  for (int i = 0; i < 16; i++) ((uint8_t *)to->scale)[i] = odd(qn__le16(s + i / 4 * 2) >> 3 * (i % 4) & 7);
  for (int i = 0; i < 32; i++) {
    unsigned high = b[32 + i / 2] >> 4 * (i % 2) & 15;
    iq1(b[i] | (high & 7) << 8, high >> 3, to->codes + 8 * i);
  }
}

void qn__iq2_xxs(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  for (int i = 0; i < 8; i++) {
    const uint8_t *entry = b + 2 + 8 * i;
    uint32_t signs = qn__le32(entry + 4);
    for (int j = 0; j < 4; j++) iq2(qn__grid_iq2_xxs[entry[j]], even(signs >> 7 * j), to->codes + 32 * i + 8 * j);
    ((uint8_t *)to->scale)[i] = odd(signs >> 28);
  }
}

void qn__iq2_xs(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  for (int i = 0; i < 32; i++) {
    unsigned q = qn__le16(b + 2 + 2 * i);
    iq2(qn__grid_iq2_xs[q & 511], even(q >> 9), to->codes + 8 * i);
  }
  nibble_scales(b + 66, 16, to);
}

void qn__iq2_s(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  for (int i = 0; i < 32; i++) {
    unsigned high = b[66 + i / 4] >> 2 * (i % 4) & 3;
    iq2(qn__grid_iq2_s[b[2 + i] | high << 8], b[34 + i], to->codes + 8 * i);
  }
  nibble_scales(b + 74, 16, to);
}

void qn__iq3_xxs(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  for (int i = 0; i < 64; i++) {
    uint32_t signs = qn__le32(b + 66 + i / 8 * 4);
    iq3(qn__grid_iq3_xxs[b[2 + i]], even(signs >> 7 * (i % 8 / 2)) >> 4 * (i % 2), to->codes + 4 * i);
    ((uint8_t *)to->scale)[i / 8] = odd(signs >> 28);
  }
}

void qn__iq3_s(const uint8_t *b, const dest *to) {
  memcpy(to->d, b, 2);
  for (int i = 0; i < 64; i++) {
    unsigned high = b[66 + i / 8] >> i % 8 & 1;
    iq3(qn__grid_iq3_s[b[2 + i] | high << 8], b[74 + i / 2] >> 4 * (i % 2), to->codes + 4 * i);
  }
  nibble_scales(b + 106, 8, to);
}
