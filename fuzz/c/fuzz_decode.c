/* Any bytes through the container's string scan and the decoders of all formats: no read or write outside, the same
 * answer twice, and row by row what comes out of all rows at once. */
#include "input.h"
#include "iqrun.h"

#include <stdlib.h>

static void scan(input *in) {
    const uint64_t offset = take_u8(in), count = take_u8(in);
    uint64_t *starts = malloc((count + 1) * sizeof *starts);
    uint8_t *data = malloc(in->left ? in->left : 1);
    if (!starts || !data) __builtin_trap();
    memcpy(data, in->data, in->left);
    if (iq_scan_strings(data, in->left, offset, count, starts, NULL) == IQ_OK) {
        for (uint64_t i = 0; i < count; i++) {
            if (starts[i] > starts[i + 1] || starts[i + 1] > in->left) __builtin_trap();
        }
    }
    free(starts), free(data);
}

static void decode(const iq_format_info *format, size_t n_rows, size_t n_cols, input *in) {
    const size_t row_bytes = (size_t)iq_row_bytes(format->id, n_cols), n = n_rows * n_cols;
    uint8_t *rows = malloc(n_rows * row_bytes);
    float *all = malloc(n * sizeof *all), *one = malloc(n * sizeof *one);
    if (!rows || !all || !one) __builtin_trap();
    take_bytes(in, rows, n_rows * row_bytes);
    if (iq_dequantize_rows(format->id, rows, n_rows, n_cols, all, NULL) != IQ_OK) __builtin_trap();
    for (size_t r = 0; r < n_rows; r++) {
        if (iq_dequantize_rows(format->id, rows + r * row_bytes, 1, n_cols, one + r * n_cols, NULL) != IQ_OK) {
            __builtin_trap();
        }
    }
    if (memcmp(all, one, n * sizeof *all) != 0) __builtin_trap();
    free(rows), free(all), free(one);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    const size_t which = take_u8(&in) % (iq_format_count() + 1);
    if (which == iq_format_count()) {
        scan(&in);
        return 0;
    }
    const iq_format_info *format = iq_format_at(which);
    const size_t n_rows = 1 + take_u8(&in) % 4, n_blocks = 1 + take_u8(&in) % 4;
    decode(format, n_rows, n_blocks * format->block_weights, &in);
    return 0;
}
