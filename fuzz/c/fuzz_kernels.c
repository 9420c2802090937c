/* Any bytes as weights, any floats as activations: every instruction set of this machine must stay inside its memory
 * and give what the portable kernels give.
 *
 * Input: format, rows, superblocks, tokens (a byte each), kind of activations, then bytes of rows and activations. */
#include "base/fp16.h"
#include "input.h"
#include "iqrun.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_ROWS = 9, MOST_BLOCKS = 2, SUPERBLOCK = 256 };

/* Rows and tokens: alone, few, and one more than any kernel takes at once. Most are small, for the sake of speed. */
static const size_t counts[] = {1, 2, 3, 4, MOST_ROWS, 1, 2, 5};

typedef struct {
    const iq_format_info *format;
    size_t n_rows, n_cols, n_tokens;
    uint8_t *rows;
    float *x, *weights;
    float magnitude[MOST_ROWS];
} product;

/* The largest magnitude, or a negative number if one is not finite or beyond what float sums can hold. */
static float most(const float *values, size_t n) {
    float largest = 0.0f;
    for (size_t i = 0; i < n; i++) {
        if (!(fabsf(values[i]) < 1e15f)) return -1.0f;
        largest = fmaxf(largest, fabsf(values[i]));
    }
    return largest;
}

/* Activations as quantize_x makes them: floats of any bits, or small numbers, which give comparable sums. */
static void fill_activations(product *p, input *in) {
    const int any = take_u8(in) % 4 == 0;
    for (size_t i = 0; i < p->n_tokens * p->n_cols; i++) {
        p->x[i] = any ? iq_bits_to_f32(take_u32(in)) : (float)(int8_t)take_u8(in) / 16.0f;
    }
}

/* How large a row's weights are with its scales: some kernels add a constant to the codes and take it away again, so
 * that rows of zeros get the rounding errors of large codes. Flipped high bits make such codes. */
static float row_magnitude(const product *p, size_t row) {
    static uint8_t flipped[MOST_BLOCKS * SUPERBLOCK * sizeof(float)];
    static float weights[MOST_BLOCKS * SUPERBLOCK];
    static const uint8_t masks[] = {0x80, 0x88};
    const size_t row_bytes = (size_t)iq_row_bytes(p->format->id, p->n_cols);
    float largest = most(p->weights + row * p->n_cols, p->n_cols);
    for (size_t m = 0; m < sizeof masks && largest >= 0; m++) {
        for (size_t i = 0; i < row_bytes; i++) flipped[i] = p->rows[row * row_bytes + i] ^ masks[m];
        if (iq_dequantize_rows(p->format->id, flipped, 1, p->n_cols, weights, NULL) != IQ_OK) __builtin_trap();
        largest = fmaxf(largest, most(weights, p->n_cols));
    }
    return largest;
}

/* Float sums differ in order only. Denormal results may differ by their last bit. */
static void compare(const product *p, const char *isa, const float *y, const float *expected) {
    for (size_t r = 0; r < p->n_rows; r++) {
        const float w = p->magnitude[r];
        for (size_t t = 0; t < p->n_tokens; t++) {
            const float x = most(p->x + t * p->n_cols, p->n_cols);
            if (w < 0 || x < 0) continue;
            const size_t i = t * p->n_rows + r;
            if (fabsf(y[i] - expected[i]) <= 1e-4f * w * x * (float)p->n_cols + 1e-30f) continue;
            fprintf(stderr, "%s %s row %zu token %zu: %g instead of %g\n", isa, p->format->name, r, t, (double)y[i],
                    (double)expected[i]);
            __builtin_trap();
        }
    }
}

static float *multiply(const product *p, const iq_kernels *kernels) {
    float *y = malloc(p->n_tokens * p->n_rows * sizeof *y);
    if (!y) __builtin_trap();
    if (iq_matmul(kernels, p->format->id, p->rows, p->n_rows, p->n_cols, p->x, p->n_tokens, y, NULL) != IQ_OK) {
        __builtin_trap();
    }
    return y;
}

static void run(product *p) {
    size_t last = 0; /* the portable kernels */
    while (kernels_at(last + 1)) last++;
    float *expected = multiply(p, kernels_at(last));
    for (size_t r = 0; r < p->n_rows; r++) p->magnitude[r] = row_magnitude(p, r);
    for (size_t i = 0; i < last; i++) {
        float *y = multiply(p, kernels_at(i));
        compare(p, iq_kernels_isa(kernels_at(i)), y, expected);
        free(y);
    }
    free(expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    product p = {.format = iq_format_at(take_u8(&in) % iq_format_count())};
    p.n_rows = counts[take_u8(&in) % 8];
    const size_t unit = p.format->block_weights < SUPERBLOCK ? 32 : SUPERBLOCK;
    p.n_cols = unit * (1 + take_u8(&in) % (MOST_BLOCKS * SUPERBLOCK / unit));
    p.n_tokens = counts[take_u8(&in) % 8];
    const size_t row_bytes = (size_t)iq_row_bytes(p.format->id, p.n_cols);
    p.rows = malloc(p.n_rows * row_bytes); /* exactly: a read beyond it is found */
    p.x = malloc(p.n_tokens * p.n_cols * sizeof *p.x);
    p.weights = malloc(p.n_rows * p.n_cols * sizeof *p.weights);
    if (!p.rows || !p.x || !p.weights) __builtin_trap();
    fill_activations(&p, &in);
    take_bytes(&in, p.rows, p.n_rows * row_bytes);
    if (iq_dequantize_rows(p.format->id, p.rows, p.n_rows, p.n_cols, p.weights, NULL) != IQ_OK) __builtin_trap();
    run(&p);
    free(p.rows), free(p.x), free(p.weights);
    return 0;
}
