/* IQ4_K: superblock of 16 sub-blocks of 16, w = d * scale * (iq4_values[q] + IQ4_SHIFT if its bit is set).
 *
 *   d         fp16
 *   extra     u16, bit sb: sub-block sb uses the shifted codebook
 *   scales_h  byte sb/4, bits 2(sb%4)..2(sb%4)+1: upper two bits of the scale of sub-block sb
 *   scales_l  its low nibble: byte sb/2, low half for even sb, high half for odd
 *   qs        byte 16b + j: low nibble = weight j of sub-block 2b, high nibble = weight j of sub-block 2b + 1 */
#ifndef IQ_FORMAT_IQ4_K_H
#define IQ_FORMAT_IQ4_K_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t extra[2];
    uint8_t scales_h[4];
    uint8_t scales_l[8];
    uint8_t qs[128];
} block_iq4_k;

_Static_assert(sizeof(block_iq4_k) == 144, "4.5 bits per weight");

/* Scale code of sub-block sb (0..15): -32..31. */
IQ_INLINE int iq4_k_scale(const block_iq4_k *b, int sb) {
    const int low = b->scales_l[sb / 2] >> 4 * (sb % 2) & 15;
    return (low | (b->scales_h[sb / 4] >> 2 * (sb % 4) & 3) << 4) - 32;
}
IQ_INLINE int iq4_k_shifted(const block_iq4_k *b, int sb) { return iq_load_u16(b->extra) >> sb & 1; }

#endif
