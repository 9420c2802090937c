/* IQ4_KSS: row scale fp32 in front of the row; superblock of 8 sub-blocks of 32; scales and codes as IQ4_KS,
 * but the scale byte hides in the low bits of the codes.
 *
 *   qs  sub-block sb = eight u16 u[k] at qs[16sb + 2k]:
 *       bit 0 of u[k]   = bit k of the scale byte of IQ4_KS
 *       t = u[k] & 0xfffe; t ^ t >> 1 = bytes 2k, 2k + 1 of IQ4_KS's 16 nibble bytes (low byte first) */
#ifndef IQ_FORMAT_IQ4_KSS_H
#define IQ_FORMAT_IQ4_KSS_H

#include "base/platform.h"

typedef struct {
    uint8_t qs[128];
} block_iq4_kss;

#define IQ4_KSS_ROW_META 4 /* fp32 */

_Static_assert(sizeof(block_iq4_kss) == 128, "4 bits per weight");

/* The scale byte of sub-block sb (0..7), as IQ4_KS stores it. */
IQ_INLINE int iq4_kss_scale_byte(const block_iq4_kss *b, int sb) {
    int byte = 0;
    for (int k = 0; k < 8; k++) byte |= (b->qs[16 * sb + 2 * k] & 1) << k;
    return byte;
}

#endif
