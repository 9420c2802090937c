/* IQ3_K, IQ3_KS: three bits per weight. */
#include "format/codebooks.h"
#include "format/decode.h"
#include "format/iq3_k.h"
#include "format/iq3_ks.h"
#include "format/unpack.h"

static void iq3_k_superblock(const block_iq3_k *b, float *out) {
    const float d = iq_load_f16(b->d);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_2bit(b->qs, codes);
    iq_unpack_high_bit(b->qh, 2, codes);
    for (int sb = 0; sb < 16; sb++) {
        const float scale = d * (float)iq3_k_scale(b, sb);
        const int shift = IQ3_SHIFT * iq3_k_shifted(b, sb);
        iq_decode_sub_block(codes + 16 * sb, 16, scale, iq3_values, shift, out + 16 * sb);
    }
}

static void iq3_ks_superblock(const block_iq3_ks *b, float row_scale, float *out) {
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_2bit(b->qs, codes);
    iq_unpack_high_bit(b->qh, 2, codes);
    for (int sb = 0; sb < 8; sb++) {
        const float scale = row_scale * (float)iq3_ks_scale(b, sb);
        const int shift = IQ3_SHIFT * iq3_ks_shifted(b, sb);
        iq_decode_sub_block(codes + 32 * sb, 32, scale, iq3_values, shift, out + 32 * sb);
    }
}

void iq_decode_iq3_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_iq3_k *b = (const block_iq3_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq3_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_iq3_ks(const uint8_t *row, size_t n_cols, float *out) {
    const float row_scale = iq_load_f16(row);
    const block_iq3_ks *b = (const block_iq3_ks *)(row + IQ3_KS_ROW_META);
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq3_ks_superblock(b + i, row_scale, out + IQ_SUPERBLOCK * i);
}
