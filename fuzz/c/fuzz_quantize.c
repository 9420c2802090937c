/* Any floats through the encoders: refused (NaN, Inf) or encoded to bytes that decode to finite numbers. */
#include "base/fp16.h"
#include "input.h"
#include "iqrun.h"

#include <math.h>
#include <stdlib.h>

static void fill(float *values, size_t n, int any, input *in) {
    for (size_t i = 0; i < n; i++) values[i] = any ? iq_bits_to_f32(take_u32(in)) : (float)(int8_t)take_u8(in) / 32.0f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    const iq_format_info *format = iq_format_at(take_u8(&in) % iq_format_count());
    const size_t n_rows = 1 + take_u8(&in) % 2, n_cols = format->block_weights < 256 ? 64 : 256, n = n_rows * n_cols;
    const uint8_t kind = take_u8(&in);
    float *x = malloc(n * sizeof *x), *importance = malloc(n_cols * sizeof *importance);
    uint8_t *rows = malloc(n_rows * (size_t)iq_row_bytes(format->id, n_cols));
    if (!x || !importance || !rows) __builtin_trap();
    fill(importance, n_cols, kind & 2, &in);
    fill(x, n, kind & 1, &in);
    const iq_effort effort = kind & 8 ? IQ_EFFORT_NORMAL : IQ_EFFORT_FAST;
    const iq_status status =
        iq_quantize_rows(format->id, x, n_rows, n_cols, kind & 4 ? importance : NULL, effort, rows, NULL);
    if (status == IQ_OK) {
        if (iq_dequantize_rows(format->id, rows, n_rows, n_cols, x, NULL) != IQ_OK) __builtin_trap();
        for (size_t i = 0; i < n && format->block_weights > 1; i++) {
            if (!isfinite(x[i])) __builtin_trap();
        }
    }
    free(x), free(importance), free(rows);
    return 0;
}
