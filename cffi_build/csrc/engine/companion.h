/* Int8 companions of float buffers, written by the stage that computes the floats. */
#ifndef IQ_ENGINE_COMPANION_H
#define IQ_ENGINE_COMPANION_H

#include "engine/context.h"

/* Whether the companions of a buffer are packed into panels (iq_kernels.pack_x) in the step in progress: where only the
 * shape for many tokens will read them, in tiles that begin with a panel. */
bool iq_in_panels(const iq_context *context, int32_t buffer);

/* Bytes of one companion of a buffer with n_row rows, in panels or not. */
uint64_t iq_companion_bytes(const iq_program *program, int32_t buffer, uint64_t n_row);

/* A buffer's companion from `row` on, of which a panel starts there. */
const void *iq_companion_at(const iq_context *context, int32_t buffer, iq_slot_order order, size_t row);

/* Quantizes whole rows of the stage's buffer to the stage's orders. */
void iq_companion_rows(iq_context *context, const iq_stage *stage, uint32_t first_row, uint32_t n_rows);

/* Tells that columns [first_col, end_col) of a tile of rows are computed. A superblock is quantized by whoever computes
 * the last of its columns: the float values are then still in a near cache, and no stage of its own is needed. */
void iq_companion_columns(iq_context *context, const iq_stage *stage, uint32_t tile, uint32_t first_row,
                          uint32_t n_rows, uint32_t first_col, uint32_t end_col);

/* Forgets columns of a stage that was cancelled half-way. */
void iq_companion_reset(iq_context *context);

#endif
