/* Q3_K: superblock of 16 sub-blocks of 16, w = d * scale * (q - 4).
 *
 *   hmask   byte j, bit G: high bit of weight 32G + j
 *   qs      low two bits; half h (128 weights) in qs[32h..32h+31]; group g of 32 weights at bits 2g..2g+1
 *   scales  6 bits each: low nibble of scale sb in byte sb%8 (low half for sb < 8, high half else);
 *           upper two bits in byte 8 + sb%4, bits 2(sb/4)..2(sb/4)+1
 *   d       fp16 */
#ifndef IQ_FORMAT_Q3_K_H
#define IQ_FORMAT_Q3_K_H

#include "base/platform.h"

typedef struct {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint8_t d[2];
} block_q3_k;

_Static_assert(sizeof(block_q3_k) == 110, "3.4375 bits per weight");

/* Scale code of sub-block sb (0..15): -32..31. */
IQ_INLINE int q3_k_scale(const block_q3_k *b, int sb) {
    const int low = b->scales[sb % 8] >> 4 * (sb / 8) & 15;
    return (low | (b->scales[8 + sb % 4] >> 2 * (sb / 4) & 3) << 4) - 32;
}

#endif
