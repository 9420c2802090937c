/* Int8 companions of float buffers, written by the stage that computes the floats. */
#ifndef IQ_ENGINE_COMPANION_H
#define IQ_ENGINE_COMPANION_H

#include "engine/context.h"

/* Quantizes whole rows of the stage's buffer to the stage's orders. */
void iq_companion_rows(iq_context *context, const iq_stage *stage, uint32_t first_row, uint32_t n_rows);

/* Tells that columns [first_col, end_col) of a tile of rows are computed. A superblock is quantized by whoever computes
 * the last of its columns: the float values are then still in a near cache, and no stage of its own is needed. */
void iq_companion_columns(iq_context *context, const iq_stage *stage, uint32_t tile, uint32_t first_row,
                          uint32_t n_rows, uint32_t first_col, uint32_t end_col);

/* Forgets columns of a stage that was cancelled half-way. */
void iq_companion_reset(iq_context *context);

#endif
