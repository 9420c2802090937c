/* IQ6_K: superblock of 16 sub-blocks of 16, w = d * scale * (iq6_value(q) + IQ6_SHIFT if its bit is set).
 *
 *   d       fp16
 *   extra   u16, bit sb: sub-block sb uses the shifted codebook
 *   scales  int8, byte sb
 *   qs      byte 32c + j: low nibble = weight 64c + j, high nibble = weight 64c + 32 + j
 *   qh      byte 32(c/2) + j, shifted right by 4(c%2): bits 0..1 = upper two bits of weight 64c + j,
 *           bits 2..3 = of weight 64c + 32 + j */
#ifndef IQ_FORMAT_IQ6_K_H
#define IQ_FORMAT_IQ6_K_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t extra[2];
    int8_t scales[16];
    uint8_t qs[128];
    uint8_t qh[64];
} block_iq6_k;

_Static_assert(sizeof(block_iq6_k) == 212, "6.625 bits per weight");

IQ_INLINE int iq6_k_shifted(const block_iq6_k *b, int sb) { return iq_load_u16(b->extra) >> sb & 1; }

#endif
