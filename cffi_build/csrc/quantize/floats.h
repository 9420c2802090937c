/* Plain conversions to the float types: nearest, ties to even; beyond the range, the largest finite number. */
#ifndef IQ_QUANTIZE_FLOATS_H
#define IQ_QUANTIZE_FLOATS_H

#include "base/platform.h"

void iq_write_f32(const float *x, size_t n, uint8_t *row);
void iq_write_f16(const float *x, size_t n, uint8_t *row);
void iq_write_bf16(const float *x, size_t n, uint8_t *row);

#endif
