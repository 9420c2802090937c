/* IQ5_KS: row scale fp32 in front of the row; superblock of 8 sub-blocks of 32,
 * w = row_scale * scale * (iq5_values[q] + IQ5_SHIFT if its bit is set).
 *
 *   scales  byte sb: bits 1..7 = scale + 127 (even), bit 0: the shifted codebook
 *   qs      byte 32c + j: low nibble = weight 64c + j (sub-block 2c), high nibble = weight 64c + 32 + j
 *   qh      byte j, bit sb: fifth bit of weight j of sub-block sb */
#ifndef IQ_FORMAT_IQ5_KS_H
#define IQ_FORMAT_IQ5_KS_H

#include "base/platform.h"

typedef struct {
    uint8_t scales[8];
    uint8_t qs[128];
    uint8_t qh[32];
} block_iq5_ks;

#define IQ5_KS_ROW_META 4 /* fp32 */

_Static_assert(sizeof(block_iq5_ks) == 168, "5.25 bits per weight");

/* Scale code of sub-block sb (0..7): odd, -127..127. */
IQ_INLINE int iq5_ks_scale(const block_iq5_ks *b, int sb) { return (b->scales[sb] & 254) - 127; }
IQ_INLINE int iq5_ks_shifted(const block_iq5_ks *b, int sb) { return b->scales[sb] & 1; }

#endif
