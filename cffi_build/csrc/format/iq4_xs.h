/* IQ4_XS: superblock of 8 sub-blocks of 32, w = d * scale * iq4_values[q].
 *
 *   d         fp16
 *   scales_h  u16, bits 2sb..2sb+1: upper two bits of the scale of sub-block sb
 *   scales_l  its low nibble: byte sb/2, low half for even sb, high half for odd
 *   qs        byte 16sb + j: low nibble = weight j of sub-block sb, high nibble = weight j + 16 */
#ifndef IQ_FORMAT_IQ4_XS_H
#define IQ_FORMAT_IQ4_XS_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t scales_h[2];
    uint8_t scales_l[4];
    uint8_t qs[128];
} block_iq4_xs;

_Static_assert(sizeof(block_iq4_xs) == 136, "4.25 bits per weight");

/* Scale code of sub-block sb (0..7): -32..31. */
IQ_INLINE int iq4_xs_scale(const block_iq4_xs *b, int sb) {
    const int low = b->scales_l[sb / 2] >> 4 * (sb % 2) & 15;
    return (low | (iq_load_u16(b->scales_h) >> 2 * sb & 3) << 4) - 32;
}

#endif
