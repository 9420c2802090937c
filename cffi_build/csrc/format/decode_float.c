#include "format/decode.h"

void iq_decode_f32(const uint8_t *row, size_t n_cols, float *out) { memcpy(out, row, n_cols * sizeof *out); }

void iq_decode_f16(const uint8_t *row, size_t n_cols, float *out) {
    for (size_t i = 0; i < n_cols; i++) out[i] = iq_load_f16(row + 2 * i);
}

void iq_decode_bf16(const uint8_t *row, size_t n_cols, float *out) {
    for (size_t i = 0; i < n_cols; i++) out[i] = iq_bf16_to_f32(iq_load_u16(row + 2 * i));
}
