/* Bit layouts that several formats share; the mirror of format/unpack.h. `code` is in the order of the weights. */
#ifndef IQ_QUANTIZE_PACK_H
#define IQ_QUANTIZE_PACK_H

#include "format/format.h"

/* Low two bits: half h (128 weights) in qs[32h..32h+31], group g of 32 weights at bits 2g..2g+1. */
IQ_INLINE void iq_pack_2bit(const uint8_t code[IQ_SUPERBLOCK], uint8_t qs[64]) {
    for (int half = 0; half < 2; half++) {
        const uint8_t *c = code + 128 * half;
        for (int j = 0; j < 32; j++) {
            qs[32 * half + j] =
                (uint8_t)((c[j] & 3) | (c[j + 32] & 3) << 2 | (c[j + 64] & 3) << 4 | (c[j + 96] & 3) << 6);
        }
    }
}

/* Bit `bit` of every code: byte j, bit G holds that of weight 32G + j. */
IQ_INLINE void iq_pack_high_bit(const uint8_t code[IQ_SUPERBLOCK], int bit, uint8_t qh[32]) {
    memset(qh, 0, 32);
    for (int group = 0; group < 8; group++) {
        for (int j = 0; j < 32; j++) qh[j] |= (uint8_t)((code[32 * group + j] >> bit & 1) << group);
    }
}

/* Low nibbles of n codes: byte width * b + j holds weight 2 * width * b + j (low) and the one `width` on (high). */
IQ_INLINE void iq_pack_nibbles(const uint8_t *code, int n, int width, uint8_t *qs) {
    for (int i = 0; i < n; i += 2 * width) {
        for (int j = 0; j < width; j++) *qs++ = (uint8_t)((code[i + j] & 15) | (code[i + j + width] & 15) << 4);
    }
}

/* Upper two bits (4, 5) of six-bit codes: groups of 32 weights at bits 0, 2, 4, 6 of qh[0..31], then of qh[32..63]. */
IQ_INLINE void iq_pack_high_pairs(const uint8_t code[IQ_SUPERBLOCK], uint8_t qh[64]) {
    for (int half = 0; half < 2; half++) {
        const uint8_t *c = code + 128 * half;
        for (int j = 0; j < 32; j++) {
            qh[32 * half + j] = (uint8_t)(c[j] >> 4 | c[j + 32] >> 4 << 2 | c[j + 64] >> 4 << 4 | c[j + 96] >> 4 << 6);
        }
    }
}

/* Low nibbles of n scale codes: byte sb/2, even sb low. */
IQ_INLINE void iq_pack_scale_nibbles(const int16_t *scale, int n, uint8_t *out) {
    for (int i = 0; i < n; i += 2) out[i / 2] = (uint8_t)((scale[i] & 15) | (scale[i + 1] & 15) << 4);
}

/* Bits 4..5 of n scale codes: byte sb/4, two bits each. */
IQ_INLINE void iq_pack_scale_pairs(const int16_t *scale, int n, uint8_t *out) {
    for (int i = 0; i < n; i += 4) {
        out[i / 4] = (uint8_t)((scale[i] >> 4 & 3) | (scale[i + 1] >> 4 & 3) << 2 | (scale[i + 2] >> 4 & 3) << 4 |
                               (scale[i + 3] >> 4 & 3) << 6);
    }
}

/* The scale bytes of the KS types with odd scales: 2k + 1 is stored as 2k + 128 (bits 1..7), the codebook in bit 0. */
IQ_INLINE void iq_pack_odd_scales(const int16_t *k, unsigned shifted, uint8_t out[8]) {
    for (int sb = 0; sb < 8; sb++) out[sb] = (uint8_t)(2 * k[sb] + 128 + (int)(shifted >> sb & 1));
}

IQ_INLINE void iq_store_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }

#endif
