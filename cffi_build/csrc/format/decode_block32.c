/* The types with blocks of 32 weights. */
#include "format/codebooks.h"
#include "format/decode.h"
#include "format/iq4_nl.h"
#include "format/q4_0.h"
#include "format/q4_1.h"
#include "format/q5_0.h"
#include "format/q5_1.h"
#include "format/q6_0.h"
#include "format/q8_0.h"

/* Codes of 4 bits: low nibbles are weights 0..15, high nibbles 16..31. */
static void nibble_codes(const uint8_t qs[16], uint8_t codes[32]) {
    for (int j = 0; j < 16; j++) {
        codes[j] = qs[j] & 15;
        codes[j + 16] = qs[j] >> 4;
    }
}

/* Codes of 5 bits: bit i of qh is the fifth bit of weight i. */
static void five_bit_codes(const uint8_t qs[16], const uint8_t qh[4], uint8_t codes[32]) {
    const uint32_t high = iq_load_u32(qh);
    nibble_codes(qs, codes);
    for (int i = 0; i < 32; i++) codes[i] |= (uint8_t)((high >> i & 1) << 4);
}

static void decode_offset(const uint8_t codes[32], float d, int offset, float *out) {
    for (int i = 0; i < 32; i++) out[i] = d * (float)(codes[i] - offset);
}

static void decode_min(const uint8_t codes[32], float d, float min, float *out) {
    for (int i = 0; i < 32; i++) out[i] = d * (float)codes[i] + min;
}

void iq_decode_q4_0(const uint8_t *row, size_t n_cols, float *out) {
    const block_q4_0 *b = (const block_q4_0 *)row;
    uint8_t codes[32];
    for (size_t i = 0; i < n_cols / 32; i++) {
        nibble_codes(b[i].qs, codes);
        decode_offset(codes, iq_load_f16(b[i].d), 8, out + 32 * i);
    }
}

void iq_decode_q4_1(const uint8_t *row, size_t n_cols, float *out) {
    const block_q4_1 *b = (const block_q4_1 *)row;
    uint8_t codes[32];
    for (size_t i = 0; i < n_cols / 32; i++) {
        nibble_codes(b[i].qs, codes);
        decode_min(codes, iq_load_f16(b[i].d), iq_load_f16(b[i].m), out + 32 * i);
    }
}

void iq_decode_q5_0(const uint8_t *row, size_t n_cols, float *out) {
    const block_q5_0 *b = (const block_q5_0 *)row;
    uint8_t codes[32];
    for (size_t i = 0; i < n_cols / 32; i++) {
        five_bit_codes(b[i].qs, b[i].qh, codes);
        decode_offset(codes, iq_load_f16(b[i].d), 16, out + 32 * i);
    }
}

void iq_decode_q5_1(const uint8_t *row, size_t n_cols, float *out) {
    const block_q5_1 *b = (const block_q5_1 *)row;
    uint8_t codes[32];
    for (size_t i = 0; i < n_cols / 32; i++) {
        five_bit_codes(b[i].qs, b[i].qh, codes);
        decode_min(codes, iq_load_f16(b[i].d), iq_load_f16(b[i].m), out + 32 * i);
    }
}

void iq_decode_q6_0(const uint8_t *row, size_t n_cols, float *out) {
    const block_q6_0 *b = (const block_q6_0 *)row;
    uint8_t codes[32];
    for (size_t i = 0; i < n_cols / 32; i++) {
        nibble_codes(b[i].qs, codes);
        for (int j = 0; j < 16; j++) {
            const int high = b[i].qh[j % 8] >> 4 * (j / 8);
            codes[j] |= (uint8_t)((high & 3) << 4);
            codes[j + 16] |= (uint8_t)((high >> 2 & 3) << 4);
        }
        decode_offset(codes, iq_load_f16(b[i].d), 32, out + 32 * i);
    }
}

void iq_decode_q8_0(const uint8_t *row, size_t n_cols, float *out) {
    const block_q8_0 *b = (const block_q8_0 *)row;
    for (size_t i = 0; i < n_cols; i++) out[i] = iq_load_f16(b[i / 32].d) * (float)b[i / 32].qs[i % 32];
}

void iq_decode_iq4_nl(const uint8_t *row, size_t n_cols, float *out) {
    const block_iq4_nl *b = (const block_iq4_nl *)row;
    uint8_t codes[32];
    for (size_t i = 0; i < n_cols / 32; i++) {
        nibble_codes(b[i].qs, codes);
        iq_decode_sub_block(codes, 32, iq_load_f16(b[i].d), iq4_values, 0, out + 32 * i);
    }
}
