/* IQ4_KS: row scale fp32 in front of the row; superblock of 8 sub-blocks of 32,
 * w = row_scale * scale * (iq4_values[q] + IQ4_SHIFT if its bit is set).
 *
 *   scales  byte sb: bits 1..7 = scale + 127 (even), bit 0: the shifted codebook
 *   qs      byte 16sb + j: low nibble = weight j of sub-block sb, high nibble = weight j + 16 */
#ifndef IQ_FORMAT_IQ4_KS_H
#define IQ_FORMAT_IQ4_KS_H

#include "base/platform.h"

typedef struct {
    uint8_t scales[8];
    uint8_t qs[128];
} block_iq4_ks;

#define IQ4_KS_ROW_META 4 /* fp32 */

_Static_assert(sizeof(block_iq4_ks) == 136, "4.25 bits per weight");

/* Scale code of sub-block sb (0..7): odd, -127..127. */
IQ_INLINE int iq4_ks_scale(const block_iq4_ks *b, int sb) { return (b->scales[sb] & 254) - 127; }
IQ_INLINE int iq4_ks_shifted(const block_iq4_ks *b, int sb) { return b->scales[sb] & 1; }

#endif
