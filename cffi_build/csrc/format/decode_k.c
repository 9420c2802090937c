/* The K-quants: linear codes, with a scale (and, for some, a minimum) per sub-block. */
#include "format/decode.h"
#include "format/q2_k.h"
#include "format/q3_k.h"
#include "format/q4_k.h"
#include "format/q5_k.h"
#include "format/q6_k.h"
#include "format/unpack.h"

static void decode_min(const uint8_t *codes, size_t n, float scale, float min, float *out) {
    for (size_t j = 0; j < n; j++) out[j] = scale * (float)codes[j] - min;
}

static void decode_offset(const uint8_t *codes, size_t n, float scale, int offset, float *out) {
    for (size_t j = 0; j < n; j++) out[j] = scale * (float)(codes[j] - offset);
}

static void q2_k_superblock(const block_q2_k *b, float *out) {
    const float d = iq_load_f16(b->d), dmin = iq_load_f16(b->dmin);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_2bit(b->qs, codes);
    for (int sb = 0; sb < 16; sb++) {
        const int scale = b->scales[sb] & 15, min = b->scales[sb] >> 4;
        decode_min(codes + 16 * sb, 16, d * (float)scale, dmin * (float)min, out + 16 * sb);
    }
}

static void q3_k_superblock(const block_q3_k *b, float *out) {
    const float d = iq_load_f16(b->d);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_2bit(b->qs, codes);
    iq_unpack_high_bit(b->hmask, 2, codes);
    for (int sb = 0; sb < 16; sb++) {
        decode_offset(codes + 16 * sb, 16, d * (float)q3_k_scale(b, sb), 4, out + 16 * sb);
    }
}

static void q4_k_superblock(const block_q4_k *b, float *out) {
    const float d = iq_load_f16(b->d), dmin = iq_load_f16(b->dmin);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_nibbles(b->qs, 32, codes);
    for (int sb = 0; sb < 8; sb++) {
        const float scale = d * (float)k_scale(b->scales, sb), min = dmin * (float)k_min(b->scales, sb);
        decode_min(codes + 32 * sb, 32, scale, min, out + 32 * sb);
    }
}

static void q5_k_superblock(const block_q5_k *b, float *out) {
    const float d = iq_load_f16(b->d), dmin = iq_load_f16(b->dmin);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_nibbles(b->qs, 32, codes);
    iq_unpack_high_bit(b->qh, 4, codes);
    for (int sb = 0; sb < 8; sb++) {
        const float scale = d * (float)k_scale(b->scales, sb), min = dmin * (float)k_min(b->scales, sb);
        decode_min(codes + 32 * sb, 32, scale, min, out + 32 * sb);
    }
}

static void q6_k_superblock(const block_q6_k *b, float *out) {
    const float d = iq_load_f16(b->d);
    uint8_t codes[IQ_SUPERBLOCK];
    iq_unpack_nibbles(b->ql, 64, codes);
    for (int i = 0; i < IQ_SUPERBLOCK; i++) {
        codes[i] |= (uint8_t)((b->qh[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3) << 4);
    }
    for (int sb = 0; sb < 16; sb++) {
        decode_offset(codes + 16 * sb, 16, d * (float)b->scales[sb], 32, out + 16 * sb);
    }
}

void iq_decode_q2_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_q2_k *b = (const block_q2_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) q2_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_q3_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_q3_k *b = (const block_q3_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) q3_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_q4_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_q4_k *b = (const block_q4_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) q4_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_q5_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_q5_k *b = (const block_q5_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) q5_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}

void iq_decode_q6_k(const uint8_t *row, size_t n_cols, float *out) {
    const block_q6_k *b = (const block_q6_k *)row;
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) q6_k_superblock(b + i, out + IQ_SUPERBLOCK * i);
}
