/* IQ2_KL: row scale fp16 in front of the row; superblock of 8 sub-blocks of 32 weights = 16 pairs,
 * (w[2p], w[2p+1]) = row_scale * scale * iq2_kl_pairs[index].
 *
 *   scales_h  u16, bits 2sb..2sb+1: upper two bits of the scale of sub-block sb
 *   scales_l  its low nibble: byte sb%4, low half for sb < 4, high half else
 *   qs        byte 16(sb/2) + p: low four bits of the index of pair p, low nibble for even sb, high nibble for odd
 *   qh        byte p, bit sb: fifth bit of the index */
#ifndef IQ_FORMAT_IQ2_KL_H
#define IQ_FORMAT_IQ2_KL_H

#include "base/platform.h"

typedef struct {
    uint8_t scales_h[2];
    uint8_t scales_l[4];
    uint8_t qs[64];
    uint8_t qh[16];
} block_iq2_kl;

#define IQ2_KL_ROW_META 2 /* fp16 */

_Static_assert(sizeof(block_iq2_kl) == 86, "2.6875 bits per weight");

/* Scale code of sub-block sb (0..7): -32..31. */
IQ_INLINE int iq2_kl_scale(const block_iq2_kl *b, int sb) {
    const int low = b->scales_l[sb % 4] >> 4 * (sb / 4) & 15;
    return (low | (iq_load_u16(b->scales_h) >> 2 * sb & 3) << 4) - 32;
}

#endif
