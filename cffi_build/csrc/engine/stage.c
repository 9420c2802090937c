#include "engine/stage.h"

uint32_t iq_stage_prepare(iq_context *context, const iq_stage *stage) {
    iq_stage_run *run = &context->run;
    run->stage = stage;
    run->number++;
    run->op = &context->program->ops[stage->op];
    run->n_rows = stage->kind == IQ_STAGE_KV_STORE ? context->batch.n_tokens : iq_domain_rows(context, stage->buffer);
    if (run->n_rows == 0) return 0;
    switch (stage->kind) {
    case IQ_STAGE_MATMUL:
    case IQ_STAGE_GATED_MATMUL: return iq_matmul_prepare(context);
    case IQ_STAGE_ATTEND: return iq_attend_prepare(context);
    case IQ_STAGE_ROUTE: return 1;
    default: return iq_rows_prepare(context);
    }
}

void iq_stage_chunk(iq_context *context, uint32_t chunk, uint32_t thread) {
    switch (context->run.stage->kind) {
    case IQ_STAGE_MATMUL:
    case IQ_STAGE_GATED_MATMUL: iq_matmul_chunk(context, chunk, thread); break;
    case IQ_STAGE_ATTEND: iq_attend_chunk(context, chunk, thread); break;
    case IQ_STAGE_ROUTE: iq_route(context); break;
    default: iq_rows_chunk(context, chunk, thread); break;
    }
}
