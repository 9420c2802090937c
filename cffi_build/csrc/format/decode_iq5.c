/* IQ5_K, IQ5_KS: five bits per weight. */
#include "format/codebooks.h"
#include "format/decode.h"
#include "format/iq5_k.h"
#include "format/iq5_ks.h"
#include "format/unpack.h"

static void iq5_k_superblock(const block_iq5_k *b, float *out) {
    const float d = iq_load_f16(b->d);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_nibbles(b->qs, 32, codes);
    iq_unpack_high_bit(b->qh, 4, codes);
    for (int sb = 0; sb < 16; sb++) {
        const float scale = d * (float)iq5_k_scale(b, sb);
        const int shift = IQ5_SHIFT * iq5_k_shifted(b, sb);
        iq_decode_sub_block(codes + 16 * sb, 16, scale, iq5_values, shift, out + 16 * sb);
    }
}

static void iq5_ks_superblock(const block_iq5_ks *b, float row_scale, float *out) {
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_nibbles(b->qs, 32, codes);
    iq_unpack_high_bit(b->qh, 4, codes);
    for (int sb = 0; sb < 8; sb++) {
        const float scale = row_scale * (float)iq5_ks_scale(b, sb);
        const int shift = IQ5_SHIFT * iq5_ks_shifted(b, sb);
        iq_decode_sub_block(codes + 32 * sb, 32, scale, iq5_values, shift, out + 32 * sb);
    }
}

void iq_decode_iq5_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_iq5_k *b = (const block_iq5_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq5_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_iq5_ks(const uint8_t *row, size_t n_cols, float *out) {
    const float row_scale = iq_load_f32(row);
    const block_iq5_ks *b = (const block_iq5_ks *)(row + IQ5_KS_ROW_META);
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq5_ks_superblock(b + i, row_scale, out + IQ_SUPERBLOCK * i);
}
