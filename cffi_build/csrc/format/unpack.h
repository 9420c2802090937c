/* The four ways in which superblocks store their codes; every K and IQ type uses one of them. Codes come out in the
 * order of the weights. */
#ifndef IQ_FORMAT_UNPACK_H
#define IQ_FORMAT_UNPACK_H

#include "format/format.h"

/* Two bits: half h of the superblock in qs[32h..32h+31], group g of 32 weights at bits 2g..2g+1. */
IQ_INLINE void iq_unpack_2bit(const uint8_t qs[64], uint8_t codes[IQ_SUPERBLOCK]) {
    for (int group = 0; group < 8; group++) {
        const uint8_t *bytes = qs + 32 * (group / 4);
        for (int j = 0; j < 32; j++) codes[32 * group + j] = bytes[j] >> 2 * (group % 4) & 3;
    }
}

/* One more bit on top, as bit `position` of the code: group g of 32 weights at bit g of qh[0..31]. */
IQ_INLINE void iq_unpack_high_bit(const uint8_t qh[32], int position, uint8_t codes[IQ_SUPERBLOCK]) {
    for (int group = 0; group < 8; group++) {
        for (int j = 0; j < 32; j++) codes[32 * group + j] |= (uint8_t)((qh[j] >> group & 1) << position);
    }
}

/* Nibbles `apart` (16 or 32) weights from each other: each run of `apart` bytes holds as many weights in its low
 * nibbles, then as many in its high nibbles. */
IQ_INLINE void iq_unpack_nibbles(const uint8_t qs[128], int apart, uint8_t codes[IQ_SUPERBLOCK]) {
    for (int run = 0; run < 128; run += apart) {
        for (int j = 0; j < apart; j++) {
            codes[2 * run + j] = qs[run + j] & 15;
            codes[2 * run + apart + j] = qs[run + j] >> 4;
        }
    }
}

#endif
