/* What may be done to the sequences of a context between two steps. */
#include "engine/context.h"

/* Enters the context if no step is open. */
static iq_status enter_idle(iq_context *c, iq_error *error) {
    const iq_status status = iq_context_enter(c, error);
    if (status != IQ_OK || !c->stepping) return status;
    iq_context_leave(c);
    return iq_fail(error, IQ_ERR_ARGUMENT, "a step is open: end it before touching sequences");
}

static iq_status check_seq(const iq_context *c, int32_t seq, uint32_t length, iq_error *error) {
    if (seq < 0 || (uint32_t)seq >= c->params.n_seq) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "there is no sequence %d, the context has %u", seq, c->params.n_seq);
    }
    if (length > c->kv.length[seq]) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "sequence %d has %u tokens, fewer than %u", seq, c->kv.length[seq],
                       length);
    }
    return IQ_OK;
}

static iq_status check_state(const iq_context *c, uint32_t length, const void *data, size_t bytes, iq_error *error) {
    const uint64_t expected = iq_seq_state_bytes(c, length);
    if (bytes == expected && (data || bytes == 0)) return IQ_OK;
    return iq_fail(error, IQ_ERR_ARGUMENT, "the state of %u tokens has %llu bytes, not %llu", length,
                   (unsigned long long)expected, (unsigned long long)bytes);
}

uint32_t iq_seq_length(const iq_context *context, int32_t seq) {
    return seq >= 0 && (uint32_t)seq < context->params.n_seq ? context->kv.length[seq] : 0;
}

uint32_t iq_kv_free(const iq_context *context) { return context->kv.n_free * IQ_KV_BLOCK; }

iq_status iq_seq_truncate(iq_context *context, int32_t seq, uint32_t length, iq_error *error) {
    iq_status status = enter_idle(context, error);
    if (status != IQ_OK) return status;
    status = check_seq(context, seq, length, error);
    if (status == IQ_OK) iq_kv_truncate(&context->kv, (uint32_t)seq, length);
    iq_context_leave(context);
    return status;
}

iq_status iq_seq_copy(iq_context *context, int32_t src, int32_t dst, uint32_t length, iq_error *error) {
    iq_status status = enter_idle(context, error);
    if (status != IQ_OK) return status;
    status = check_seq(context, src, length, error);
    if (status == IQ_OK) status = check_seq(context, dst, 0, error);
    if (status == IQ_OK) status = iq_kv_copy(&context->kv, (uint32_t)src, (uint32_t)dst, length, error);
    iq_context_leave(context);
    return status;
}

uint64_t iq_seq_state_bytes(const iq_context *context, uint32_t length) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < context->kv.n_layer; i++) {
        const uint64_t row_bytes = 2 * context->kv.layers[i].n_head_kv * context->kv.layers[i].row_bytes;
        bytes = iq_add_u64(bytes, iq_mul_u64(row_bytes, length));
    }
    return bytes;
}

iq_status iq_seq_export(iq_context *context, int32_t seq, uint32_t length, void *data, size_t bytes, iq_error *error) {
    iq_status status = enter_idle(context, error);
    if (status != IQ_OK) return status;
    status = check_seq(context, seq, length, error);
    if (status == IQ_OK) status = check_state(context, length, data, bytes, error);
    if (status == IQ_OK) iq_kv_export(&context->kv, (uint32_t)seq, length, data);
    iq_context_leave(context);
    return status;
}

iq_status iq_seq_import(iq_context *context, int32_t seq, uint32_t length, const void *data, size_t bytes,
                        iq_error *error) {
    iq_status status = enter_idle(context, error);
    if (status != IQ_OK) return status;
    status = check_seq(context, seq, 0, error);
    if (status == IQ_OK) status = check_state(context, length, data, bytes, error);
    if (status == IQ_OK) status = iq_kv_import(&context->kv, (uint32_t)seq, length, data, error);
    iq_context_leave(context);
    return status;
}
