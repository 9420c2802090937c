/* What a program must fulfil before anything runs: afterwards no stage checks anything. */
#include "engine/program.h"

#include <math.h>

typedef struct {
    const iq_program *program;
    const iq_weight *weights;
    const iq_op *op;
    uint32_t index;
    bool *written; /* per buffer: some op before this one fills it */
    bool *cached;  /* per layer: some op before this one is its attention */
    iq_error *error;
} check_state;

static const char *const op_names[IQ_OP_KINDS] = {
    [IQ_OP_EMBED] = "embed",
    [IQ_OP_SELECT] = "select",
    [IQ_OP_RMS_NORM] = "rms_norm",
    [IQ_OP_MATMUL] = "matmul",
    [IQ_OP_GATED_MATMUL] = "gated_matmul",
    [IQ_OP_ROPE_TABLE] = "rope_table",
    [IQ_OP_ROPE] = "rope",
    [IQ_OP_ATTENTION] = "attention",
    [IQ_OP_ADD] = "add",
};

const char *iq_op_name(int32_t kind) { return kind >= 0 && kind < IQ_OP_KINDS ? op_names[kind] : "unknown"; }

/* `return bad(c, "...", ...)`: the sentence starts with the op's number and kind. */
#define bad(c, format, ...)                                                                                            \
    iq_fail((c)->error, IQ_ERR_ARGUMENT, "op %u (%s): " format, (c)->index, iq_op_name((c)->op->kind), __VA_ARGS__)

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        const iq_status status_ = (call);                                                                              \
        if (status_ != IQ_OK) return status_;                                                                          \
    } while (0)

static iq_status check_buffer(const check_state *c, const char *role, int slot, int32_t buffer, int32_t domain) {
    if (buffer < 0 || (uint32_t)buffer >= c->program->n_buffer) {
        return bad(c, "%s%d is buffer %d, the program has %u", role, slot, buffer, c->program->n_buffer);
    }
    if (c->program->buffers[buffer].domain != domain) {
        return bad(c, "%s%d (buffer %d) must have a row per %s", role, slot, buffer,
                   domain == IQ_ROWS_TOKENS ? "token" : "output");
    }
    return IQ_OK;
}

static iq_status check_source(const check_state *c, int slot, int32_t domain) {
    const int32_t buffer = c->op->src[slot];
    TRY(check_buffer(c, "src", slot, buffer, domain));
    return c->written[buffer] ? IQ_OK : bad(c, "src%d (buffer %d) is read before any op writes it", slot, buffer);
}

/* A destination that is changed, not filled. */
static iq_status check_in_place(const check_state *c, int slot, int32_t domain) {
    const int32_t buffer = c->op->dst[slot];
    TRY(check_buffer(c, "dst", slot, buffer, domain));
    return c->written[buffer] ? IQ_OK : bad(c, "dst%d (buffer %d) is changed before any op fills it", slot, buffer);
}

static iq_status check_distinct(const check_state *c, int slot, int32_t other) {
    return c->op->dst[slot] != other ? IQ_OK : bad(c, "dst%d (buffer %d) may not be one of its sources", slot, other);
}

static iq_status check_cols(const check_state *c, const char *role, int slot, int32_t buffer, uint64_t n_cols) {
    const uint32_t have = c->program->buffers[buffer].n_cols;
    if (have == n_cols) return IQ_OK;
    return bad(c, "%s%d (buffer %d) has %u columns, %llu are needed", role, slot, buffer, have,
               (unsigned long long)n_cols);
}

static iq_status check_weight(const check_state *c, const char *role, int slot, int32_t weight) {
    if (weight >= 0 && (uint32_t)weight < c->program->n_weight) return IQ_OK;
    return bad(c, "%s%d is weight %d, the program has %u", role, slot, weight, c->program->n_weight);
}

static iq_status check_vector(const check_state *c, const char *role, int slot, int32_t weight, uint64_t length) {
    TRY(check_weight(c, role, slot, weight));
    const iq_weight *w = &c->weights[weight];
    if (w->type != IQ_TYPE_F32) return bad(c, "%s%d (weight %d) must be F32, not type %d", role, slot, weight, w->type);
    if (iq_mul_u64(w->n_rows, w->n_cols) == length) return IQ_OK;
    return bad(c, "%s%d (weight %d) has %llu x %llu values, %llu are needed", role, slot, weight,
               (unsigned long long)w->n_rows, (unsigned long long)w->n_cols, (unsigned long long)length);
}

static iq_status check_finite(const check_state *c) {
    return isfinite(c->op->f[0]) ? IQ_OK : bad(c, "f0 is %f, not a finite number", (double)c->op->f[0]);
}

static iq_status check_embed(const check_state *c) {
    const iq_program *p = c->program;
    TRY(check_finite(c));
    TRY(check_buffer(c, "dst", 0, c->op->dst[0], IQ_ROWS_TOKENS));
    TRY(check_weight(c, "weight", 0, c->op->weight[0]));
    const iq_weight *w = &c->weights[c->op->weight[0]];
    if (w->n_rows < p->n_vocab) {
        return bad(c, "weight0 has %llu rows, the vocabulary has %u tokens", (unsigned long long)w->n_rows, p->n_vocab);
    }
    return check_cols(c, "dst", 0, c->op->dst[0], w->n_cols);
}

static iq_status check_select(const check_state *c) {
    TRY(check_source(c, 0, IQ_ROWS_TOKENS));
    TRY(check_buffer(c, "dst", 0, c->op->dst[0], IQ_ROWS_OUTPUTS));
    return check_cols(c, "dst", 0, c->op->dst[0], c->program->buffers[c->op->src[0]].n_cols);
}

/* The domain of a row-wise op is that of its first source. */
static int32_t domain_of(const check_state *c, int32_t buffer) {
    const bool known = buffer >= 0 && (uint32_t)buffer < c->program->n_buffer;
    return known ? c->program->buffers[buffer].domain : IQ_ROWS_TOKENS;
}

static iq_status check_rms_norm(const check_state *c) {
    const iq_op *op = c->op;
    const int32_t domain = domain_of(c, op->src[0]);
    TRY(check_finite(c));
    TRY(check_source(c, 0, domain));
    TRY(check_buffer(c, "dst", 0, op->dst[0], domain));
    const uint32_t n_cols = c->program->buffers[op->src[0]].n_cols;
    TRY(check_cols(c, "dst", 0, op->dst[0], n_cols));
    if (op->f[0] < 0) return bad(c, "f0 (eps) is %g, it may not be negative", (double)op->f[0]);
    if (op->head_dim <= 0 || n_cols % (uint32_t)op->head_dim != 0) {
        return bad(c, "head_dim %d must divide the %u columns", op->head_dim, n_cols);
    }
    return op->weight[0] == -1 ? IQ_OK : check_vector(c, "weight", 0, op->weight[0], (uint64_t)op->head_dim);
}

static iq_status check_multiplied(const check_state *c, int slot, int32_t dst) {
    const int32_t weight = c->op->weight[slot], bias = c->op->bias[slot];
    TRY(check_weight(c, "weight", slot, weight));
    const iq_weight *w = &c->weights[weight];
    if (!iq_format_kernels_find(c->program->kernels, w->type)) {
        const iq_format_info *info = iq_format_find(w->type);
        return iq_fail(c->error, IQ_ERR_UNSUPPORTED, "op %u (%s): weight%d has type %s (%d), which the %s kernels lack",
                       c->index, iq_op_name(c->op->kind), slot, info ? info->name : "unknown", w->type,
                       c->program->kernels->isa);
    }
    TRY(check_cols(c, "src", 0, c->op->src[0], w->n_cols));
    TRY(check_cols(c, "dst", dst, c->op->dst[dst], w->n_rows));
    return bias == -1 ? IQ_OK : check_vector(c, "bias", slot, bias, w->n_rows);
}

static iq_status check_matmul(const check_state *c) {
    const iq_op *op = c->op;
    const int32_t domain = domain_of(c, op->src[0]);
    TRY(check_source(c, 0, domain));
    if (op->n < 1 || op->n > IQ_OP_SLOTS) return bad(c, "n is %d, 1 to %d weights are possible", op->n, IQ_OP_SLOTS);
    for (int i = 0; i < op->n; i++) {
        const bool add = (op->flags & IQ_FLAG_ADD) != 0;
        TRY(add ? check_in_place(c, i, domain) : check_buffer(c, "dst", i, op->dst[i], domain));
        TRY(check_distinct(c, i, op->src[0]));
        for (int j = 0; j < i; j++) {
            if (op->dst[i] == op->dst[j]) return bad(c, "dst%d and dst%d are the same buffer %d", j, i, op->dst[i]);
        }
        TRY(check_multiplied(c, i, i));
    }
    return IQ_OK;
}

static iq_status check_gated_matmul(const check_state *c) {
    const iq_op *op = c->op;
    const int32_t domain = domain_of(c, op->src[0]);
    TRY(check_source(c, 0, domain));
    if (op->n != 2) return bad(c, "n is %d, a gate and an up weight are needed", op->n);
    TRY(check_buffer(c, "dst", 0, op->dst[0], domain));
    TRY(check_distinct(c, 0, op->src[0]));
    TRY(check_multiplied(c, 0, 0));
    return check_multiplied(c, 1, 0);
}

static iq_status check_rope_table(const check_state *c) {
    const iq_op *op = c->op;
    TRY(check_finite(c));
    TRY(check_buffer(c, "dst", 0, op->dst[0], IQ_ROWS_TOKENS));
    if (op->n_rot < 2 || op->n_rot % 2 != 0) return bad(c, "n_rot is %d, an even number is needed", op->n_rot);
    TRY(check_cols(c, "dst", 0, op->dst[0], (uint64_t)op->n_rot));
    return check_vector(c, "weight", 0, op->weight[0], (uint64_t)op->n_rot / 2);
}

static iq_status check_rope(const check_state *c) {
    const iq_op *op = c->op;
    TRY(check_source(c, 0, IQ_ROWS_TOKENS));
    TRY(check_in_place(c, 0, IQ_ROWS_TOKENS));
    TRY(check_distinct(c, 0, op->src[0]));
    if (op->n_rot < 2 || op->n_rot % 2 != 0 || op->n_rot > op->head_dim) {
        return bad(c, "n_rot is %d, an even number up to head_dim %d is needed", op->n_rot, op->head_dim);
    }
    const uint32_t n_cols = c->program->buffers[op->dst[0]].n_cols;
    if (n_cols % (uint32_t)op->head_dim != 0) {
        return bad(c, "head_dim %d must divide the %u columns", op->head_dim, n_cols);
    }
    return check_cols(c, "src", 0, op->src[0], (uint64_t)op->n_rot);
}

static iq_status check_heads(const check_state *c) {
    const iq_op *op = c->op;
    if (op->head_dim < 8 || op->head_dim > IQ_MAX_HEAD_DIM || op->head_dim % 8 != 0) {
        return bad(c, "head_dim is %d, a multiple of 8 up to %d is needed", op->head_dim, IQ_MAX_HEAD_DIM);
    }
    if (op->n_head_kv < 1 || op->n_head < 1 || op->n_head % op->n_head_kv != 0) {
        return bad(c, "n_head %d must be a multiple of n_head_kv %d", op->n_head, op->n_head_kv);
    }
    return IQ_OK;
}

static iq_status check_attention(const check_state *c) {
    const iq_op *op = c->op;
    TRY(check_finite(c));
    TRY(check_heads(c));
    for (int i = 0; i < 3; i++) {
        TRY(check_source(c, i, IQ_ROWS_TOKENS));
        TRY(check_distinct(c, 0, op->src[i]));
        const uint64_t n_head = (uint64_t)(i == 0 ? op->n_head : op->n_head_kv);
        TRY(check_cols(c, "src", i, op->src[i], n_head * (uint64_t)op->head_dim));
    }
    TRY(check_buffer(c, "dst", 0, op->dst[0], IQ_ROWS_TOKENS));
    TRY(check_cols(c, "dst", 0, op->dst[0], (uint64_t)op->n_head * (uint64_t)op->head_dim));
    if (op->layer < 0 || (uint32_t)op->layer >= c->program->n_layer) {
        return bad(c, "layer is %d, the KV cache has %u", op->layer, c->program->n_layer);
    }
    if (c->cached[op->layer]) return bad(c, "layer %d of the KV cache is already used by another op", op->layer);
    c->cached[op->layer] = true;
    return IQ_OK;
}

static iq_status check_add(const check_state *c) {
    const int32_t domain = domain_of(c, c->op->src[0]);
    TRY(check_source(c, 0, domain));
    TRY(check_in_place(c, 0, domain));
    TRY(check_distinct(c, 0, c->op->src[0]));
    return check_cols(c, "dst", 0, c->op->dst[0], c->program->buffers[c->op->src[0]].n_cols);
}

static iq_status check_op(const check_state *c) {
    switch (c->op->kind) {
    case IQ_OP_EMBED: return check_embed(c);
    case IQ_OP_SELECT: return check_select(c);
    case IQ_OP_RMS_NORM: return check_rms_norm(c);
    case IQ_OP_MATMUL: return check_matmul(c);
    case IQ_OP_GATED_MATMUL: return check_gated_matmul(c);
    case IQ_OP_ROPE_TABLE: return check_rope_table(c);
    case IQ_OP_ROPE: return check_rope(c);
    case IQ_OP_ATTENTION: return check_attention(c);
    case IQ_OP_ADD: return check_add(c);
    default: return bad(c, "there is no op of kind %d", c->op->kind);
    }
}

static void mark_written(const check_state *c) {
    const int n = c->op->kind == IQ_OP_MATMUL ? c->op->n : 1;
    for (int i = 0; i < n; i++) c->written[c->op->dst[i]] = true;
}

static iq_status check_ops(check_state *c) {
    for (c->index = 0; c->index < c->program->n_op; c->index++) {
        c->op = &c->program->ops[c->index];
        TRY(check_op(c));
        mark_written(c);
    }
    for (uint32_t i = 0; i < c->program->n_layer; i++) {
        if (c->cached[i]) continue;
        return iq_fail(c->error, IQ_ERR_ARGUMENT, "no attention op uses layer %u of the KV cache", i);
    }
    return IQ_OK;
}

static iq_status check_buffers(const iq_program *p, iq_error *error) {
    for (uint32_t i = 0; i < p->n_buffer; i++) {
        const iq_buffer *b = &p->buffers[i];
        if (b->n_cols == 0) return iq_fail(error, IQ_ERR_ARGUMENT, "buffer %u has no columns", i);
        if (b->domain != IQ_ROWS_TOKENS && b->domain != IQ_ROWS_OUTPUTS) {
            return iq_fail(error, IQ_ERR_ARGUMENT, "buffer %u has the unknown row domain %d", i, b->domain);
        }
    }
    return IQ_OK;
}

static iq_status check_weights(const iq_program *p, const iq_weight *weights, iq_error *error) {
    for (uint32_t i = 0; i < p->n_weight; i++) {
        const iq_weight *w = &weights[i];
        if (!w->data) return iq_fail(error, IQ_ERR_ARGUMENT, "weight %u has no data", i);
        if (!iq_format_row(w->type)) {
            return iq_fail(error, IQ_ERR_UNSUPPORTED, "weight %u has the unknown type %d", i, w->type);
        }
        const uint64_t row_bytes = iq_row_bytes(w->type, w->n_cols);
        if (row_bytes == 0 || w->n_rows == 0 || iq_mul_u64(row_bytes, w->n_rows) > PTRDIFF_MAX) {
            return iq_fail(error, IQ_ERR_ARGUMENT, "weight %u cannot have %llu rows of %llu columns of type %d", i,
                           (unsigned long long)w->n_rows, (unsigned long long)w->n_cols, w->type);
        }
    }
    return IQ_OK;
}

static iq_status check_output(const check_state *c) {
    const iq_program *p = c->program;
    if (p->output < 0 || (uint32_t)p->output >= p->n_buffer) {
        return iq_fail(c->error, IQ_ERR_ARGUMENT, "the output is buffer %d, the program has %u", p->output,
                       p->n_buffer);
    }
    if (p->buffers[p->output].domain != IQ_ROWS_OUTPUTS || !c->written[p->output]) {
        return iq_fail(c->error, IQ_ERR_ARGUMENT, "the output (buffer %d) must have a row per output and be filled",
                       p->output);
    }
    return IQ_OK;
}

iq_status iq_program_check(const iq_program *program, const iq_weight *weights, iq_error *error) {
    TRY(check_buffers(program, error));
    TRY(check_weights(program, weights, error));
    iq_memory memory = {0};
    check_state c = {.program = program, .weights = weights, .error = error};
    c.written = iq_memory_take_zeroed(&memory, program->n_buffer, sizeof(bool));
    c.cached = iq_memory_take_zeroed(&memory, program->n_layer, sizeof(bool));
    iq_status status = memory.failed ? iq_fail(error, IQ_ERR_MEMORY, "no memory to check the program") : check_ops(&c);
    if (status == IQ_OK) status = check_output(&c);
    iq_memory_free(&memory);
    return status;
}
