/* IQ3_K: superblock of 16 sub-blocks of 16, w = d * scale * (iq3_values[q] + IQ3_SHIFT if its bit is set).
 *
 *   d         fp16
 *   extra     u16, bit sb: sub-block sb uses the shifted codebook
 *   scales_h  u16, bit sb: its scale is negative
 *   scales_l  byte sb/2: nibble n (low for even sb, high for odd), |scale| = 2n + 1
 *   qs        low two bits; half h (128 weights) in qs[32h..32h+31]; group g of 32 weights at bits 2g..2g+1
 *   qh        byte j, bit G: high bit of weight 32G + j */
#ifndef IQ_FORMAT_IQ3_K_H
#define IQ_FORMAT_IQ3_K_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t extra[2];
    uint8_t scales_h[2];
    uint8_t scales_l[8];
    uint8_t qs[64];
    uint8_t qh[32];
} block_iq3_k;

_Static_assert(sizeof(block_iq3_k) == 110, "3.4375 bits per weight");

/* Scale code of sub-block sb (0..15): odd, -31..31. */
IQ_INLINE int iq3_k_scale(const block_iq3_k *b, int sb) {
    const int size = 2 * (b->scales_l[sb / 2] >> 4 * (sb % 2) & 15) + 1;
    return iq_load_u16(b->scales_h) >> sb & 1 ? -size : size;
}
IQ_INLINE int iq3_k_shifted(const block_iq3_k *b, int sb) { return iq_load_u16(b->extra) >> sb & 1; }

#endif
