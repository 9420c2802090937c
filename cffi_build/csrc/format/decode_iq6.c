/* IQ6_K: six bits per weight through a cubic. */
#include "format/codebooks.h"
#include "format/decode.h"
#include "format/iq6_k.h"
#include "format/unpack.h"

static void iq6_k_codes(const block_iq6_k *b, uint8_t codes[IQ_SUPERBLOCK]) {
    iq_unpack_nibbles(b->qs, 32, codes);
    for (int group = 0; group < 8; group++) {
        const uint8_t *high = b->qh + 32 * (group / 4);
        for (int j = 0; j < 32; j++) codes[32 * group + j] |= (uint8_t)((high[j] >> 2 * (group % 4) & 3) << 4);
    }
}

static void iq6_k_superblock(const block_iq6_k *b, const float *values, float *out) {
    const float d = iq_load_f16(b->d);
    uint8_t codes[IQ_SUPERBLOCK];
    iq6_k_codes(b, codes);
    for (int sb = 0; sb < 16; sb++) {
        const float scale = d * (float)b->scales[sb];
        const float shift = (float)(IQ6_SHIFT * iq6_k_shifted(b, sb));
        for (int i = 16 * sb; i < 16 * sb + 16; i++) out[i] = scale * (values[codes[i]] + shift);
    }
}

void iq_decode_iq6_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_iq6_k *b = (const block_iq6_k *)row;
    float values[64];
    for (int q = 0; q < 64; q++) values[q] = iq6_value(q);
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq6_k_superblock(b + i, values, out + IQ_SUPERBLOCK * i);
}
