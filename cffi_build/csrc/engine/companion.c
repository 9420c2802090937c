#include "engine/companion.h"

/* Quantizes columns [first_col, first_col + n_cols), which start at a superblock, of one row. */
static void quantize_row_part(iq_context *c, const iq_stage *stage, size_t row, size_t first_col, size_t n_cols) {
    const size_t row_blocks = iq_q8_blocks(c->program->buffers[stage->buffer].n_cols);
    const float *x = iq_buffer_row(c, stage->buffer, row) + first_col;
    for (uint32_t order = 0; order < IQ_ORDERS; order++) {
        if (!(stage->orders >> order & 1)) continue;
        iq_q8_block *blocks = c->companions[(size_t)stage->buffer * IQ_ORDERS + order];
        c->kernels->quantize_x(x, n_cols, (iq_slot_order)order, blocks + row * row_blocks + first_col / IQ_SUPERBLOCK);
    }
}

void iq_companion_rows(iq_context *context, const iq_stage *stage, uint32_t first_row, uint32_t n_rows) {
    if (stage->orders == 0) return;
    const size_t n_cols = context->program->buffers[stage->buffer].n_cols;
    for (uint32_t i = 0; i < n_rows; i++) quantize_row_part(context, stage, first_row + i, 0, n_cols);
}

void iq_companion_columns(iq_context *context, const iq_stage *stage, uint32_t tile, uint32_t first_row,
                          uint32_t n_rows, uint32_t first_col, uint32_t end_col) {
    if (stage->orders == 0) return;
    const uint32_t n_cols = context->program->buffers[stage->buffer].n_cols;
    _Atomic uint32_t *done = context->n_cols_done + tile * iq_q8_blocks(n_cols);
    for (uint32_t col = first_col; col < end_col;) {
        const uint32_t block = col / IQ_SUPERBLOCK, start = block * IQ_SUPERBLOCK;
        const uint32_t stop = (uint32_t)iq_min_size(start + IQ_SUPERBLOCK, n_cols);
        const uint32_t part = (uint32_t)iq_min_size(stop, end_col) - col;
        if (atomic_fetch_add_explicit(&done[block], part, memory_order_acq_rel) + part == stop - start) {
            atomic_store_explicit(&done[block], 0, memory_order_relaxed);
            for (uint32_t i = 0; i < n_rows; i++) quantize_row_part(context, stage, first_row + i, start, stop - start);
        }
        col += part;
    }
}

void iq_companion_reset(iq_context *context) {
    for (size_t i = 0; i < context->n_counter; i++) {
        atomic_store_explicit(&context->n_cols_done[i], 0, memory_order_relaxed);
    }
}
