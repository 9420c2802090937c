#include "quantize/floats.h"
#include "base/fp16.h"

static void write_u16(uint16_t bits, uint16_t infinity, uint8_t *to) {
    if ((bits & 0x7fffu) == infinity) bits--;
    memcpy(to, &bits, sizeof bits);
}

void iq_write_f32(const float *x, size_t n, uint8_t *row) { memcpy(row, x, n * sizeof *x); }

void iq_write_f16(const float *x, size_t n, uint8_t *row) {
    for (size_t i = 0; i < n; i++) write_u16(iq_f32_to_f16(x[i]), 0x7c00, row + 2 * i);
}

void iq_write_bf16(const float *x, size_t n, uint8_t *row) {
    for (size_t i = 0; i < n; i++) write_u16(iq_f32_to_bf16(x[i]), 0x7f80, row + 2 * i);
}
