/* Multiplies random weights of one type REPETITIONS times: the program whose instructions are counted.
 *
 *   multiply ISA TYPE N_TOKENS N_ROWS N_COLS REPETITIONS */
#include "kernel/kernels.h"

#include <stdio.h>
#include <stdlib.h>

static void *take(size_t size) {
    void *p = aligned_alloc(64, iq_round_up(size, 64));
    if (!p) exit(1);
    return memset(p, 0, iq_round_up(size, 64));
}

/* Bytes without the bits that would make an fp16 or fp32 scale infinite. */
static void fill_random(uint8_t *p, size_t n) {
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24) & 0xb7;
}

static int fail(const char *what) {
    fprintf(stderr, "multiply: %s\n", what);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 7) return fail("ISA TYPE N_TOKENS N_ROWS N_COLS REPETITIONS");
    const int32_t type = atoi(argv[2]);
    const size_t n_tokens = (size_t)atol(argv[3]), n_rows = (size_t)atol(argv[4]), n_cols = (size_t)atol(argv[5]);
    const iq_kernels *kernels;
    iq_error error;
    if (iq_kernels_find(argv[1], &kernels, &error) != IQ_OK) return fail(error.text);
    const iq_format_kernels *format = iq_format_kernels_find(kernels, type);
    if (!format) return fail("no such type");

    const size_t row_bytes = (size_t)iq_row_bytes(type, n_cols);
    const size_t n_blocks = (n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK;
    uint8_t *rows = take(row_bytes * n_rows + 64);
    float *values = take(n_cols * sizeof *values);
    iq_q8_block *x = take(n_tokens * n_blocks * sizeof *x);
    fill_random(rows, row_bytes * n_rows);
    for (size_t i = 0; i < n_cols; i++) values[i] = (float)(int)(i * 7919 % 251) - 125.0f;
    for (size_t t = 0; t < n_tokens; t++) kernels->quantize_x(values, n_cols, format->order, x + t * n_blocks);
    const iq_matmul_task task = {.rows = rows,
                                 .row_bytes = row_bytes,
                                 .n_rows = n_rows,
                                 .n_cols = n_cols,
                                 .x = x,
                                 .x_stride = n_blocks * sizeof *x,
                                 .n_tokens = n_tokens,
                                 .y = take(n_tokens * n_rows * sizeof(float)),
                                 .y_stride = n_rows,
                                 .scratch = take(IQ_SCRATCH_BYTES)};
    for (long i = atol(argv[6]); i > 0; i--) format->matmul(&task);
    return 0;
}
