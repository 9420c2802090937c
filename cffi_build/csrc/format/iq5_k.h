/* IQ5_K: superblock of 16 sub-blocks of 16, w = d * scale * (iq5_values[q] + IQ5_SHIFT if its bit is set).
 *
 *   d         fp16
 *   extra     u16, bit sb: sub-block sb uses the shifted codebook
 *   scales_h  byte sb/4, bits 2(sb%4)..2(sb%4)+1: upper two bits of the scale of sub-block sb
 *   scales_l  its low nibble: byte sb/2, low half for even sb, high half for odd
 *   qs        byte 32c + j: low nibble = weight 64c + j, high nibble = weight 64c + 32 + j
 *   qh        byte j, bit 2c: fifth bit of weight 64c + j; bit 2c + 1: of weight 64c + 32 + j */
#ifndef IQ_FORMAT_IQ5_K_H
#define IQ_FORMAT_IQ5_K_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t extra[2];
    uint8_t scales_h[4];
    uint8_t scales_l[8];
    uint8_t qs[128];
    uint8_t qh[32];
} block_iq5_k;

_Static_assert(sizeof(block_iq5_k) == 176, "5.5 bits per weight");

/* Scale code of sub-block sb (0..15): -32..31. */
IQ_INLINE int iq5_k_scale(const block_iq5_k *b, int sb) {
    const int low = b->scales_l[sb / 2] >> 4 * (sb % 2) & 15;
    return (low | (b->scales_h[sb / 4] >> 2 * (sb % 4) & 3) << 4) - 32;
}
IQ_INLINE int iq5_k_shifted(const block_iq5_k *b, int sb) { return iq_load_u16(b->extra) >> sb & 1; }

#endif
