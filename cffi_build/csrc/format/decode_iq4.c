/* IQ4_XS, IQ4_K, IQ4_KS, IQ4_KSS: four bits per weight (IQ4_NL is with the blocks of 32). */
#include "format/codebooks.h"
#include "format/decode.h"
#include "format/iq4_k.h"
#include "format/iq4_ks.h"
#include "format/iq4_kss.h"
#include "format/iq4_xs.h"
#include "format/unpack.h"

static void iq4_xs_superblock(const block_iq4_xs *b, float *out) {
    const float d = iq_load_f16(b->d);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_nibbles(b->qs, 16, codes);
    for (int sb = 0; sb < 8; sb++) {
        iq_decode_sub_block(codes + 32 * sb, 32, d * (float)iq4_xs_scale(b, sb), iq4_values, 0, out + 32 * sb);
    }
}

static void iq4_k_superblock(const block_iq4_k *b, float *out) {
    const float d = iq_load_f16(b->d);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_nibbles(b->qs, 16, codes);
    for (int sb = 0; sb < 16; sb++) {
        const float scale = d * (float)iq4_k_scale(b, sb);
        const int shift = IQ4_SHIFT * iq4_k_shifted(b, sb);
        iq_decode_sub_block(codes + 16 * sb, 16, scale, iq4_values, shift, out + 16 * sb);
    }
}

static void iq4_ks_superblock(const block_iq4_ks *b, float row_scale, float *out) {
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_nibbles(b->qs, 16, codes);
    for (int sb = 0; sb < 8; sb++) {
        const float scale = row_scale * (float)iq4_ks_scale(b, sb);
        const int shift = IQ4_SHIFT * iq4_ks_shifted(b, sb);
        iq_decode_sub_block(codes + 32 * sb, 32, scale, iq4_values, shift, out + 32 * sb);
    }
}

/* The same superblock as IQ4_KS stores it. */
static void iq4_kss_to_ks(const block_iq4_kss *b, block_iq4_ks *ks) {
    for (int sb = 0; sb < 8; sb++) ks->scales[sb] = (uint8_t)iq4_kss_scale_byte(b, sb);
    for (int i = 0; i < 128; i += 2) {
        const uint32_t t = iq_load_u16(b->qs + i) & 0xfffeu, codes = t ^ t >> 1;
        ks->qs[i] = (uint8_t)codes;
        ks->qs[i + 1] = (uint8_t)(codes >> 8);
    }
}

void iq_decode_iq4_xs(const uint8_t *row, size_t n_cols, float *out) {
    const block_iq4_xs *b = (const block_iq4_xs *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq4_xs_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_iq4_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_iq4_k *b = (const block_iq4_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq4_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_iq4_ks(const uint8_t *row, size_t n_cols, float *out) {
    const float row_scale = iq_load_f32(row);
    const block_iq4_ks *b = (const block_iq4_ks *)(row + IQ4_KS_ROW_META);
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) iq4_ks_superblock(b + i, row_scale, out + IQ_SUPERBLOCK * i);
}

void iq_decode_iq4_kss(const uint8_t *row, size_t n_cols, float *out) {
    const float row_scale = iq_load_f32(row);
    const block_iq4_kss *b = (const block_iq4_kss *)(row + IQ4_KSS_ROW_META);
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) {
        block_iq4_ks ks;
        iq4_kss_to_ks(b + i, &ks);
        iq4_ks_superblock(&ks, row_scale, out + IQ_SUPERBLOCK * i);
    }
}
