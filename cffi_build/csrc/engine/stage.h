/* Running one stage: how its work is cut into chunks, and what one chunk does. */
#ifndef IQ_ENGINE_STAGE_H
#define IQ_ENGINE_STAGE_H

#include "engine/context.h"

/* Fills context->run for `stage` of the step in progress and returns its number of chunks: 0 = nothing to do, 1 = not
 * worth a second thread. Results never depend on the cut: every value is computed by one kernel call whose arithmetic
 * does not depend on the rows that share the call. */
uint32_t iq_stage_prepare(iq_context *context, const iq_stage *stage);
void iq_stage_chunk(iq_context *context, uint32_t chunk, uint32_t thread);

/* stage_rows.c: everything that works on one row (token) at a time */
uint32_t iq_rows_prepare(iq_context *context);
void iq_rows_chunk(iq_context *context, uint32_t chunk, uint32_t thread);

/* stage_experts.c: ROUTE is one chunk; DEAL and COLLECT work row by row; a matmul takes each expert's rows in tiles */
void iq_route(iq_context *context);
void iq_deal_row(iq_context *context, const iq_op *op, uint32_t row);
void iq_collect_row(iq_context *context, const iq_op *op, uint32_t row);
uint32_t iq_cut_experts(iq_routing *routing, uint32_t rows_per_tile);

/* stage_matmul.c */
uint32_t iq_matmul_prepare(iq_context *context);
void iq_matmul_chunk(iq_context *context, uint32_t chunk, uint32_t thread);

/* stage_attention.c */
uint32_t iq_attend_prepare(iq_context *context);
void iq_attend_chunk(iq_context *context, uint32_t chunk, uint32_t thread);
void iq_attend_reset(iq_context *context); /* after a stage that was cancelled half-way */

/* ceil(a / b) */
IQ_INLINE uint32_t iq_div_up(uint32_t a, uint32_t b) { return a / b + (a % b != 0); }

#endif
