#include "engine/companion.h"

static bool may_be_in_panels(const iq_program *p, int32_t buffer) {
    return p->kernels->panel_bytes > 0 && p->buffers[buffer].domain == IQ_ROWS_TOKENS && p->buffers[buffer].n_used == 0;
}

bool iq_in_panels(const iq_context *context, int32_t buffer) {
    return context->batch.way == IQ_STEP_PREFILL && may_be_in_panels(context->program, buffer);
}

uint64_t iq_companion_bytes(const iq_program *program, int32_t buffer, uint64_t n_row) {
    const iq_kernels *k = program->kernels;
    const uint64_t row_blocks = iq_q8_blocks(program->buffers[buffer].n_cols);
    const uint64_t bytes = iq_mul_u64(iq_mul_u64(n_row, row_blocks), sizeof(iq_q8_block));
    if (!may_be_in_panels(program, buffer)) return bytes;
    const uint64_t n_panel = iq_mul_u64(n_row / k->panel_tokens + 1, row_blocks);
    const uint64_t panel_bytes = iq_mul_u64(n_panel, k->panel_bytes);
    return panel_bytes > bytes ? panel_bytes : bytes;
}

/* Superblock `block` of a row, or the panel that holds it */
static void *place_of(const iq_context *c, int32_t buffer, iq_slot_order order, size_t row, size_t block) {
    const size_t row_blocks = iq_q8_blocks(c->program->buffers[buffer].n_cols);
    uint8_t *first = (uint8_t *)c->companions[(size_t)buffer * IQ_ORDERS + order];
    if (!iq_in_panels(c, buffer)) return first + (row * row_blocks + block) * sizeof(iq_q8_block);
    return first + (row / c->kernels->panel_tokens * row_blocks + block) * c->kernels->panel_bytes;
}

const void *iq_companion_at(const iq_context *context, int32_t buffer, iq_slot_order order, size_t row) {
    return place_of(context, buffer, order, row, 0);
}

/* Quantizes one superblock of one row at a time and packs it. */
static void quantize_to_panels(iq_context *c, int32_t buffer, iq_slot_order order, size_t row, size_t first_col,
                               size_t n_cols) {
    const float *x = iq_buffer_row(c, buffer, row) + first_col;
    for (size_t i = 0; i < n_cols; i += IQ_SUPERBLOCK) {
        iq_q8_block block;
        c->kernels->quantize_x(x + i, iq_min_size(n_cols - i, IQ_SUPERBLOCK), order, &block);
        c->kernels->pack_x(&block, order, row % c->kernels->panel_tokens,
                           place_of(c, buffer, order, row, (first_col + i) / IQ_SUPERBLOCK));
    }
}

/* Quantizes columns [first_col, first_col + n_cols), which start at a superblock, of one row. */
static void quantize_row_part(iq_context *c, const iq_stage *stage, size_t row, size_t first_col, size_t n_cols) {
    for (uint32_t i = 0; i < IQ_ORDERS; i++) {
        const iq_slot_order order = (iq_slot_order)i;
        if (!(stage->orders >> i & 1)) continue;
        if (iq_in_panels(c, stage->buffer)) {
            quantize_to_panels(c, stage->buffer, order, row, first_col, n_cols);
        } else {
            c->kernels->quantize_x(iq_buffer_row(c, stage->buffer, row) + first_col, n_cols, order,
                                   place_of(c, stage->buffer, order, row, first_col / IQ_SUPERBLOCK));
        }
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
