/* From ops to stages: where activations become int8.
 *
 * A quantized matmul wants its input as int8 blocks (a "companion" of the float buffer) in the slot order of its
 * format; weights of mixed types may want several orders. The stage that wrote the buffer writes the companions too
 * when it can (its work covers whole superblocks); otherwise a QUANTIZE stage is put in front of the matmul.
 */
#include "engine/program.h"

typedef struct {
    iq_program *program;
    int32_t *writer;  /* per buffer: stage that wrote it last, or -1 */
    uint8_t *current; /* per buffer: orders whose companion is, or will be, up to date */
} plan_state;

/* Attention: store, attend. Matmul: quantize, multiply. Every op: at most two stages. */
uint64_t iq_plan_max_stages(uint64_t n_op) { return iq_mul_u64(n_op, 2); }

static iq_stage_kind stage_of(int32_t kind) {
    switch (kind) {
    case IQ_OP_EMBED: return IQ_STAGE_EMBED;
    case IQ_OP_SELECT: return IQ_STAGE_SELECT;
    case IQ_OP_RMS_NORM: return IQ_STAGE_RMS_NORM;
    case IQ_OP_MATMUL: return IQ_STAGE_MATMUL;
    case IQ_OP_GATED_MATMUL: return IQ_STAGE_GATED_MATMUL;
    case IQ_OP_ROPE_TABLE: return IQ_STAGE_ROPE_TABLE;
    case IQ_OP_ROPE: return IQ_STAGE_ROPE;
    case IQ_OP_ATTENTION: return IQ_STAGE_ATTEND;
    case IQ_OP_ROUTE: return IQ_STAGE_ROUTE;
    case IQ_OP_DEAL: return IQ_STAGE_DEAL;
    case IQ_OP_COLLECT: return IQ_STAGE_COLLECT;
    default: return IQ_STAGE_ADD;
    }
}

/* A gated matmul of experts does not: its tiles are not the same rows from step to step. */
static bool writes_companions(const iq_program *p, const iq_stage *stage) {
    return stage->kind == IQ_STAGE_RMS_NORM || stage->kind == IQ_STAGE_DEAL || stage->kind == IQ_STAGE_ATTEND ||
           (stage->kind == IQ_STAGE_GATED_MATMUL && p->buffers[stage->buffer].n_used == 0);
}

static iq_stage *append_stage(iq_program *p, iq_stage_kind kind, uint32_t op, int32_t buffer) {
    iq_stage *stage = &p->stages[p->n_stage++];
    *stage = (iq_stage){.kind = kind, .op = op, .buffer = buffer};
    return stage;
}

static uint8_t orders_wanted(const iq_program *p, const iq_op *op) {
    uint8_t orders = 0;
    for (int i = 0; i < op->n; i++) {
        const iq_format_kernels *kernels = p->weights[op->weight[i]].kernels;
        if (kernels->x_kind == IQ_X_Q8) orders |= (uint8_t)(1u << kernels->order);
    }
    return orders;
}

static void provide_companions(plan_state *s, uint32_t index) {
    iq_program *p = s->program;
    const int32_t buffer = p->ops[index].src[0];
    const uint8_t missing = orders_wanted(p, &p->ops[index]) & (uint8_t)~s->current[buffer];
    if (missing == 0) return;
    iq_stage *writer = &p->stages[s->writer[buffer]];
    if (!writes_companions(p, writer)) writer = append_stage(p, IQ_STAGE_QUANTIZE, index, buffer);
    writer->orders |= missing;
    s->current[buffer] |= missing;
    p->buffer_orders[buffer] |= missing;
}

static void note_written(plan_state *s, int32_t buffer) {
    s->writer[buffer] = (int32_t)s->program->n_stage - 1;
    s->current[buffer] = 0;
}

static void plan_op(plan_state *s, uint32_t index) {
    iq_program *p = s->program;
    const iq_op *op = &p->ops[index];
    p->first_stage[index] = p->n_stage;
    if (iq_op_is_matmul(op->kind)) provide_companions(s, index);
    if (op->kind == IQ_OP_ATTENTION) append_stage(p, IQ_STAGE_KV_STORE, index, -1);
    append_stage(p, stage_of(op->kind), index, op->dst[0]);
    const int n = iq_op_results(op);
    for (int i = 0; i < n; i++) note_written(s, op->dst[i]);
}

static void note_attention(iq_program *p, uint32_t index) {
    const iq_op *op = &p->ops[index];
    const uint32_t group = (uint32_t)(op->n_head / op->n_head_kv);
    p->layers[op->layer] = (iq_kv_shape){(uint32_t)op->n_head_kv, (uint32_t)op->head_dim};
    p->n_op_caching = index + 1;
    if (group > p->max_group) p->max_group = group;
    if ((uint32_t)op->n_head > p->max_head) p->max_head = (uint32_t)op->n_head;
    if ((uint32_t)op->head_dim > p->max_head_dim) p->max_head_dim = (uint32_t)op->head_dim;
}

static void note_route(iq_program *p, uint32_t index) {
    const iq_op *op = &p->ops[index];
    const uint32_t n_expert = p->buffers[op->src[0]].n_cols, n_used = p->buffers[op->dst[0]].n_cols;
    if (n_expert > p->max_expert) p->max_expert = n_expert;
    if (n_used > p->max_used) p->max_used = n_used;
}

iq_status iq_program_plan(iq_program *program, iq_error *error) {
    iq_memory memory = {0};
    plan_state s = {.program = program};
    s.writer = iq_memory_take(&memory, program->n_buffer, sizeof(int32_t));
    s.current = iq_memory_take_zeroed(&memory, program->n_buffer, sizeof(uint8_t));
    if (memory.failed) {
        iq_memory_free(&memory);
        return iq_fail(error, IQ_ERR_MEMORY, "no memory to plan the program");
    }
    for (uint32_t i = 0; i < program->n_op; i++) {
        plan_op(&s, i);
        if (program->ops[i].kind == IQ_OP_ATTENTION) note_attention(program, i);
        if (program->ops[i].kind == IQ_OP_ROUTE) note_route(program, i);
    }
    program->first_stage[program->n_op] = program->n_stage;
    iq_memory_free(&memory);
    return IQ_OK;
}
