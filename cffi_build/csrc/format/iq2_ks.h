/* IQ2_KS: row scale fp16 in front of the row; superblock of 8 sub-blocks of 32,
 * w = row_scale * scale * (iq2_values[q] + IQ2_SHIFT if its bit is set).
 *
 *   extra   u16, bit sb: sub-block sb uses the shifted codebook; bit 8 + sb: bit 4 of its scale
 *   scales  byte sb/2: low nibble for even sb, high nibble for odd
 *   qs      half h (128 weights) in qs[32h..32h+31]; group g of 32 weights at bits 2g..2g+1 */
#ifndef IQ_FORMAT_IQ2_KS_H
#define IQ_FORMAT_IQ2_KS_H

#include "base/platform.h"

typedef struct {
    uint8_t extra[2];
    uint8_t scales[4];
    uint8_t qs[64];
} block_iq2_ks;

#define IQ2_KS_ROW_META 2 /* fp16 */

_Static_assert(sizeof(block_iq2_ks) == 70, "2.1875 bits per weight");

/* Scale code of sub-block sb (0..7): -16..15. */
IQ_INLINE int iq2_ks_scale(const block_iq2_ks *b, int sb) {
    return ((b->scales[sb / 2] >> 4 * (sb % 2) & 15) | (b->extra[1] >> sb & 1) << 4) - 16;
}
IQ_INLINE int iq2_ks_shifted(const block_iq2_ks *b, int sb) { return b->extra[0] >> sb & 1; }

#endif
