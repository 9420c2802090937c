/* IQ2_K, IQ2_KS, IQ2_KL: two bits per weight, or five per pair. */
#include "format/codebooks.h"
#include "format/decode.h"
#include "format/iq2_k.h"
#include "format/iq2_kl.h"
#include "format/iq2_ks.h"
#include "format/unpack.h"

static void iq2_k_superblock(const block_iq2_k *b, float *out) {
    const float d = iq_load_f16(b->d);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_2bit(b->qs, codes);
    for (int sb = 0; sb < 16; sb++) {
        const float scale = d * (float)iq2_k_scale(b, sb);
        const int shift = IQ2_SHIFT * iq2_k_shifted(b, sb);
        iq_decode_sub_block(codes + 16 * sb, 16, scale, iq2_values, shift, out + 16 * sb);
    }
}

static void iq2_ks_superblock(const block_iq2_ks *b, float row_scale, float *out) {
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_2bit(b->qs, codes);
    for (int sb = 0; sb < 8; sb++) {
        const float scale = row_scale * (float)iq2_ks_scale(b, sb);
        const int shift = IQ2_SHIFT * iq2_ks_shifted(b, sb);
        iq_decode_sub_block(codes + 32 * sb, 32, scale, iq2_values, shift, out + 32 * sb);
    }
}

static void iq2_kl_superblock(const block_iq2_kl *b, float row_scale, float *out) {
    for (int sb = 0; sb < 8; sb++) {
        const float scale = row_scale * (float)iq2_kl_scale(b, sb);
        for (int pair = 0; pair < 16; pair++) {
            const int low = b->qs[16 * (sb / 2) + pair] >> 4 * (sb % 2) & 15;
            const int8_t *values = iq2_kl_pairs[low | (b->qh[pair] >> sb & 1) << 4];
            out[32 * sb + 2 * pair] = scale * (float)values[0];
            out[32 * sb + 2 * pair + 1] = scale * (float)values[1];
        }
    }
}

void iq_decode_iq2_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_iq2_k *b = (const block_iq2_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq2_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_iq2_ks(const uint8_t *row, size_t n_cols, float *out) {
    const float row_scale = iq_load_f16(row);
    const block_iq2_ks *b = (const block_iq2_ks *)(row + IQ2_KS_ROW_META);
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq2_ks_superblock(b + i, row_scale, out + IQ_SUPERBLOCK * i);
}

void iq_decode_iq2_kl(const uint8_t *row, size_t n_cols, float *out) {
    const float row_scale = iq_load_f16(row);
    const block_iq2_kl *b = (const block_iq2_kl *)(row + IQ2_KL_ROW_META);
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq2_kl_superblock(b + i, row_scale, out + IQ_SUPERBLOCK * i);
}
