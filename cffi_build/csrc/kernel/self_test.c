/* Compares a kernel table with the portable one before it is trusted: a miscompiled or misdetected kernel must not
 * produce text. Two rows of every format, one token and a few, in some hundred microseconds. */
#include "base/fp16.h"
#include "kernel/tables.h"

#include <math.h>
#include <stdlib.h>

enum { TEST_ROWS = 2, TEST_TOKENS = 5, MOST_ROW_BYTES = IQ_SUPERBLOCK * sizeof(float) };

typedef struct {
    alignas(64) uint8_t scratch[IQ_SCRATCH_BYTES];
    alignas(64) float x[TEST_TOKENS][IQ_SUPERBLOCK];
    iq_q8_block blocks[TEST_TOKENS], expected_blocks[TEST_TOKENS];
    uint8_t rows[TEST_ROWS * MOST_ROW_BYTES];
    float weights[IQ_SUPERBLOCK];
    float y[TEST_TOKENS][TEST_ROWS], expected[TEST_TOKENS][TEST_ROWS];
    uint32_t random;
} workspace;

static uint32_t next_random(workspace *w) {
    w->random = w->random * 1664525u + 1013904223u;
    return w->random >> 16;
}

/* Tokens of random values, of both extremes, and of one spike; the last is zero. */
static void fill_x(workspace *w) {
    for (int i = 0; i < IQ_SUPERBLOCK; i++) {
        w->x[0][i] = (float)(int)(next_random(w) % 2001) - 1000.0f;
        w->x[1][i] = next_random(w) % 2 ? 127.0f : -127.0f;
        w->x[2][i] = i % 2 ? 0x1.fffffep-1f : -1e-9f;
        w->x[3][i] = i == 77 ? 1e6f : 0.25f;
    }
}

/* Random bytes without `hole` (a bit that keeps half floats finite), behind a row scale of 1. */
static void fill_rows(workspace *w, const iq_format_info *info, size_t row_bytes, int hole) {
    for (size_t i = 0; i < TEST_ROWS * row_bytes; i++) w->rows[i] = (uint8_t)(next_random(w) & ~(uint32_t)hole & 255u);
    const uint16_t one16 = iq_f32_to_f16(1.0f);
    const float one32 = 1.0f;
    for (size_t r = 0; r < TEST_ROWS; r++) {
        if (info->row_meta_bytes == sizeof one16) memcpy(w->rows + r * row_bytes, &one16, sizeof one16);
        if (info->row_meta_bytes == sizeof one32) memcpy(w->rows + r * row_bytes, &one32, sizeof one32);
    }
}

static void multiply(const iq_kernels *kernels, const iq_format_kernels *format, workspace *w, size_t row_bytes,
                     size_t n_tokens, float *y) {
    for (size_t t = 0; t < TEST_TOKENS; t++) kernels->quantize_x(w->x[t], IQ_SUPERBLOCK, format->order, &w->blocks[t]);
    const bool q8 = format->x_kind == IQ_X_Q8;
    const iq_matmul_task task = {.rows = w->rows,
                                 .row_bytes = row_bytes,
                                 .n_rows = TEST_ROWS,
                                 .n_cols = IQ_SUPERBLOCK,
                                 .n_tokens = n_tokens,
                                 .x = q8 ? (const void *)w->blocks : w->x,
                                 .x_stride = q8 ? sizeof w->blocks[0] : sizeof w->x[0],
                                 .y = y,
                                 .y_stride = TEST_ROWS,
                                 .scratch = w->scratch};
    format->matmul(&task);
}

/* Float sums differ by their order only: by 2^-24 of the largest partial sum for each of some 100 additions. */
static bool agree(workspace *w, const iq_format *format, size_t row_bytes, size_t n_tokens) {
    for (size_t r = 0; r < TEST_ROWS; r++) {
        float largest = 0.0f;
        format->decode(w->rows + r * row_bytes, IQ_SUPERBLOCK, w->weights);
        for (int i = 0; i < IQ_SUPERBLOCK; i++) largest = fmaxf(largest, fabsf(w->weights[i]));
        for (size_t t = 0; t < n_tokens; t++) {
            float sum = 0.0f;
            for (int i = 0; i < IQ_SUPERBLOCK; i++) sum += fabsf(w->x[t][i]);
            if (!(fabsf(w->y[t][r] - w->expected[t][r]) <= 1e-5f * largest * sum)) return false;
        }
    }
    return true;
}

static bool format_agrees(const iq_kernels *kernels, const iq_format_kernels *expected, workspace *w) {
    const iq_format *format = iq_format_row(expected->type);
    const iq_format_kernels *tested = iq_format_kernels_find(kernels, expected->type);
    const size_t row_bytes = (size_t)iq_row_bytes(expected->type, IQ_SUPERBLOCK);
    if (!tested || tested->order != expected->order || tested->x_kind != expected->x_kind) return false;
    for (int pass = 0; pass < 2; pass++) {
        const size_t n_tokens = pass ? TEST_TOKENS : 1;
        fill_rows(w, &format->info, row_bytes, pass ? 0x40 : 0x08);
        multiply(&iq_kernels_portable, expected, w, row_bytes, n_tokens, w->expected[0]);
        memcpy(w->expected_blocks, w->blocks, sizeof w->blocks);
        multiply(kernels, tested, w, row_bytes, n_tokens, w->y[0]);
        if (memcmp(w->expected_blocks, w->blocks, sizeof w->blocks) != 0) return false;
        if (!agree(w, format, row_bytes, n_tokens)) return false;
    }
    return true;
}

iq_status iq_kernels_self_test(const iq_kernels *kernels, iq_error *error) {
    if (!kernels) return iq_fail(error, IQ_ERR_ARGUMENT, "iq_kernels_self_test needs a kernel table");
    if (kernels == &iq_kernels_portable) return IQ_OK;
    void *base = calloc(1, sizeof(workspace) + alignof(workspace));
    if (!base) return iq_fail(error, IQ_ERR_MEMORY, "not enough memory to test the kernels");
    workspace *w = (workspace *)iq_round_up((uintptr_t)base, alignof(workspace));
    iq_status status = IQ_OK;
    fill_x(w);
    for (size_t i = 0; i < iq_kernels_portable.n_formats && status == IQ_OK; i++) {
        const iq_format_kernels *expected = &iq_kernels_portable.formats[i];
        if (format_agrees(kernels, expected, w)) continue;
        status =
            iq_fail(error, IQ_ERR_UNSUPPORTED,
                    "the %s kernel for %s gives wrong results on this machine; set IQRUN_ISA=portable and report it",
                    kernels->isa, iq_format_find(expected->type)->name);
    }
    free(base);
    return status;
}
