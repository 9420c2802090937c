/* iq_matmul: one product on the calling thread, as the engine would compute it. */
#include "kernel/kernels.h"

#include <stdlib.h>

#define ALIGNMENT 64

/* Not cleared; NULL if the sizes overflow or memory is short. */
static void *take_aligned(size_t count, size_t size, void **base) {
    if (count > (SIZE_MAX - ALIGNMENT) / size) return NULL;
    *base = malloc(count * size + ALIGNMENT);
    return *base ? (void *)iq_round_up((uintptr_t)*base, ALIGNMENT) : NULL;
}

static iq_status multiply(const iq_kernels *kernels, const iq_format_kernels *format, iq_matmul_task *task,
                          const float *x, iq_error *error) {
    const size_t n_blocks = (task->n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK;
    void *scratch_base = NULL, *x_base = NULL;
    iq_q8_block *blocks = NULL;
    task->scratch = take_aligned(1, IQ_SCRATCH_BYTES, &scratch_base);
    if (format->x_kind == IQ_X_Q8 && task->n_tokens <= SIZE_MAX / n_blocks) {
        blocks = take_aligned(task->n_tokens * n_blocks, sizeof *blocks, &x_base);
    }
    if (task->scratch && (blocks || format->x_kind == IQ_X_F32)) {
        task->x = x;
        task->x_stride = task->n_cols * sizeof *x;
        if (blocks) {
            task->x = blocks;
            task->x_stride = n_blocks * sizeof *blocks;
            for (size_t t = 0; t < task->n_tokens; t++) {
                kernels->quantize_x(x + t * task->n_cols, task->n_cols, format->order, blocks + t * n_blocks);
            }
        }
        format->matmul(task);
    }
    const bool enough = task->scratch && (blocks || format->x_kind == IQ_X_F32);
    free(x_base), free(scratch_base);
    return enough ? IQ_OK : iq_fail(error, IQ_ERR_MEMORY, "not enough memory to multiply %zu tokens", task->n_tokens);
}

iq_status iq_matmul(const iq_kernels *kernels, int32_t id, const void *rows, size_t n_rows, size_t n_cols,
                    const float *x, size_t n_tokens, float *y, iq_error *error) {
    const iq_format_kernels *format = kernels ? iq_format_kernels_find(kernels, id) : NULL;
    const uint64_t row_bytes = iq_row_bytes(id, n_cols);
    if (!kernels) return iq_fail(error, IQ_ERR_ARGUMENT, "iq_matmul needs a kernel table");
    if (!format) return iq_fail(error, IQ_ERR_UNSUPPORTED, "no kernel multiplies tensors of type %d", (int)id);
    if (row_bytes == 0 || row_bytes > SIZE_MAX) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "a row of type %d cannot have %zu columns", (int)id, n_cols);
    }
    if (n_rows == 0 || n_tokens == 0) return IQ_OK;
    if (!rows || !x || !y) return iq_fail(error, IQ_ERR_ARGUMENT, "iq_matmul needs rows, x and y");
    iq_matmul_task task = {.rows = rows,
                           .row_bytes = (size_t)row_bytes,
                           .n_rows = n_rows,
                           .n_cols = n_cols,
                           .n_tokens = n_tokens,
                           .y = y,
                           .y_stride = n_rows};
    return multiply(kernels, format, &task, x, error);
}
