/* IQ3_KS: row scale fp16 in front of the row; superblock of 8 sub-blocks of 32,
 * w = row_scale * scale * (iq3_values[q] + IQ3_SHIFT if its bit is set).
 *
 *   extra   u16, bit sb: bit 4 of the scale of sub-block sb; bit 8 + sb: it uses the shifted codebook
 *   scales  byte sb%4: low nibble for sb < 4, high nibble else
 *   qs      low two bits; half h (128 weights) in qs[32h..32h+31]; group g of 32 weights at bits 2g..2g+1
 *   qh      byte j, bit G: high bit of weight 32G + j */
#ifndef IQ_FORMAT_IQ3_KS_H
#define IQ_FORMAT_IQ3_KS_H

#include "base/platform.h"

typedef struct {
    uint8_t extra[2];
    uint8_t scales[4];
    uint8_t qs[64];
    uint8_t qh[32];
} block_iq3_ks;

#define IQ3_KS_ROW_META 2 /* fp16 */

_Static_assert(sizeof(block_iq3_ks) == 102, "3.1875 bits per weight");

/* Scale code of sub-block sb (0..7): -16..15. */
IQ_INLINE int iq3_ks_scale(const block_iq3_ks *b, int sb) {
    return ((b->scales[sb % 4] >> 4 * (sb / 4) & 15) | (b->extra[0] >> sb & 1) << 4) - 16;
}
IQ_INLINE int iq3_ks_shifted(const block_iq3_ks *b, int sb) { return b->extra[1] >> sb & 1; }

#endif
