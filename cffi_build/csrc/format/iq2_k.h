/* IQ2_K: superblock of 16 sub-blocks of 16, w = d * scale * (iq2_values[q] + IQ2_SHIFT if its bit is set).
 *
 *   d       fp16
 *   extra   u16, bit sb: sub-block sb uses the shifted codebook
 *   scales  byte sb/2: low nibble for even sb, high nibble for odd
 *   qs      half h (128 weights) in qs[32h..32h+31]; group g of 32 weights at bits 2g..2g+1 */
#ifndef IQ_FORMAT_IQ2_K_H
#define IQ_FORMAT_IQ2_K_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t extra[2];
    uint8_t scales[8];
    uint8_t qs[64];
} block_iq2_k;

_Static_assert(sizeof(block_iq2_k) == 76, "2.375 bits per weight");

/* Scale code of sub-block sb (0..15): -8..7. */
IQ_INLINE int iq2_k_scale(const block_iq2_k *b, int sb) { return (b->scales[sb / 2] >> 4 * (sb % 2) & 15) - 8; }
IQ_INLINE int iq2_k_shifted(const block_iq2_k *b, int sb) { return iq_load_u16(b->extra) >> sb & 1; }

#endif
