/* Steps that begin in the middle of the program, from buffers that the caller fills. */
#include "engine/companion.h"

static iq_status fill(iq_context *c, int32_t buffer, const float *data, iq_error *error) {
    if (!c->stepping) return iq_fail(error, IQ_ERR_ARGUMENT, "no step is open: call iq_step_begin first");
    if (buffer < 0 || (uint32_t)buffer >= c->program->n_buffer || !data) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "there is no buffer %d, or no data for it", (int)buffer);
    }
    const uint32_t n_rows = iq_domain_rows(c, buffer);
    const size_t n_cols = c->program->buffers[buffer].n_cols;
    const iq_stage all = {.buffer = buffer, .orders = c->program->buffer_orders[buffer]};
    for (uint32_t i = 0; i < n_rows; i++) memcpy(iq_buffer_row(c, buffer, i), data + i * n_cols, n_cols * sizeof *data);
    iq_companion_rows(c, &all, 0, n_rows);
    return IQ_OK;
}

/* Whether an op follows that needs a ROUTE which stands before `op`. */
static bool is_among_experts(const iq_program *p, uint32_t op) {
    for (uint32_t i = op; i < p->n_op; i++) {
        const int32_t kind = p->ops[i].kind;
        if (kind == IQ_OP_ROUTE) return false;
        if (kind == IQ_OP_DEAL || kind == IQ_OP_COLLECT) return true;
        if (iq_op_is_matmul(kind) && p->buffers[p->ops[i].src[0]].n_used > 0) return true;
    }
    return false;
}

static iq_status seek(iq_context *c, uint32_t op, iq_error *error) {
    if (!c->stepping) return iq_fail(error, IQ_ERR_ARGUMENT, "no step is open: call iq_step_begin first");
    if (op > c->program->n_op) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "there is no op %u, the program has %u", op, c->program->n_op);
    }
    if (op != c->next_op && is_among_experts(c->program, op)) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "op %u works on rows dealt to experts: begin at the route op before it",
                       op);
    }
    c->skipped |= op != c->next_op;
    c->next_op = op;
    return IQ_OK;
}

iq_status iq_step_fill(iq_context *context, int32_t buffer, const float *data, iq_error *error) {
    iq_status status = iq_context_enter(context, error);
    if (status != IQ_OK) return status;
    status = fill(context, buffer, data, error);
    iq_context_leave(context);
    return status;
}

iq_status iq_step_seek(iq_context *context, uint32_t op, iq_error *error) {
    iq_status status = iq_context_enter(context, error);
    if (status != IQ_OK) return status;
    status = seek(context, op, error);
    iq_context_leave(context);
    return status;
}
