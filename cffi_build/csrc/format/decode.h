/* The portable decoders (iq_decode_fn), one per format, and what they share. */
#ifndef IQ_FORMAT_DECODE_H
#define IQ_FORMAT_DECODE_H

#include "base/fp16.h"
#include "format/format.h"

void iq_decode_f32(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_f16(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_bf16(const uint8_t *row, size_t n_cols, float *out);

void iq_decode_q4_0(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q4_1(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q5_0(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q5_1(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q6_0(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q8_0(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq4_nl(const uint8_t *row, size_t n_cols, float *out);

void iq_decode_q2_k(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q3_k(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q4_k(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q5_k(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_q6_k(const uint8_t *row, size_t n_cols, float *out);

void iq_decode_iq2_k(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq2_ks(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq2_kl(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq3_k(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq3_ks(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq4_xs(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq4_k(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq4_ks(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq4_kss(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq5_k(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq5_ks(const uint8_t *row, size_t n_cols, float *out);
void iq_decode_iq6_k(const uint8_t *row, size_t n_cols, float *out);

IQ_INLINE float iq_load_f16(const uint8_t *p) { return iq_f16_to_f32(iq_load_u16(p)); }

/* One sub-block: its codes through a codebook that may be shifted. */
IQ_INLINE void iq_decode_sub_block(const uint8_t *codes, size_t n, float scale, const int8_t *values, int shift,
                                   float *out) {
    for (size_t j = 0; j < n; j++) out[j] = scale * (float)(values[codes[j]] + shift);
}

#endif
