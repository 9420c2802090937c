/* What a program must fulfil before anything runs: afterwards no stage checks anything. */
#include "engine/program.h"

#include <math.h>

typedef struct {
    const iq_program *program;
    const iq_weight *weights;
    const iq_op *op;
    uint32_t index;
    bool *written;      /* per buffer: some op before this one fills it */
    bool *cached;       /* per layer: some op before this one is its attention */
    const iq_op *route; /* the last ROUTE: what is dealt now goes its ways; NULL once that was collected */
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
    [IQ_OP_ROUTE] = "route",
    [IQ_OP_DEAL] = "deal",
    [IQ_OP_COLLECT] = "collect",
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

/* What the rows of a buffer stand for: tokens or outputs, and how many experts of each (0: itself). */
typedef struct {
    int32_t domain;
    uint32_t n_used;
} row_kind;

static const row_kind tokens = {IQ_ROWS_TOKENS, 0}, outputs = {IQ_ROWS_OUTPUTS, 0};

static iq_status check_buffer(const check_state *c, const char *role, int slot, int32_t buffer, row_kind rows) {
    if (buffer < 0 || (uint32_t)buffer >= c->program->n_buffer) {
        return bad(c, "%s%d is buffer %d, the program has %u", role, slot, buffer, c->program->n_buffer);
    }
    const char *unit = rows.domain == IQ_ROWS_TOKENS ? "token" : "output";
    if (c->program->buffers[buffer].domain != rows.domain) {
        return bad(c, "%s%d (buffer %d) must have a row per %s", role, slot, buffer, unit);
    }
    if (c->program->buffers[buffer].n_used != rows.n_used) {
        return bad(c, "%s%d (buffer %d) has rows for %u experts of each %s, %u are needed", role, slot, buffer,
                   c->program->buffers[buffer].n_used, unit, rows.n_used);
    }
    return IQ_OK;
}

static iq_status check_source(const check_state *c, int slot, row_kind rows) {
    const int32_t buffer = c->op->src[slot];
    TRY(check_buffer(c, "src", slot, buffer, rows));
    return c->written[buffer] ? IQ_OK : bad(c, "src%d (buffer %d) is read before any op writes it", slot, buffer);
}

/* A destination that is changed, not filled. */
static iq_status check_in_place(const check_state *c, int slot, row_kind rows) {
    const int32_t buffer = c->op->dst[slot];
    TRY(check_buffer(c, "dst", slot, buffer, rows));
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
    TRY(check_buffer(c, "dst", 0, c->op->dst[0], tokens));
    TRY(check_weight(c, "weight", 0, c->op->weight[0]));
    const iq_weight *w = &c->weights[c->op->weight[0]];
    if (w->n_rows < p->n_vocab) {
        return bad(c, "weight0 has %llu rows, the vocabulary has %u tokens", (unsigned long long)w->n_rows, p->n_vocab);
    }
    return check_cols(c, "dst", 0, c->op->dst[0], w->n_cols);
}

static iq_status check_select(const check_state *c) {
    TRY(check_source(c, 0, tokens));
    TRY(check_buffer(c, "dst", 0, c->op->dst[0], outputs));
    return check_cols(c, "dst", 0, c->op->dst[0], c->program->buffers[c->op->src[0]].n_cols);
}

/* The rows of a row-wise op are those of its first source. */
static row_kind rows_of(const check_state *c, int32_t buffer) {
    if (buffer < 0 || (uint32_t)buffer >= c->program->n_buffer) return tokens;
    const iq_buffer *b = &c->program->buffers[buffer];
    return (row_kind){b->domain, b->n_used};
}

/* Whether rows for experts fit the route that is being followed. */
static iq_status check_dealt(const check_state *c, row_kind rows) {
    if (!c->route) return bad(c, "rows for %u experts: there is no route before it", rows.n_used);
    const iq_buffer *ids = &c->program->buffers[c->route->dst[0]];
    if (rows.n_used == ids->n_cols && rows.domain == ids->domain) return IQ_OK;
    return bad(c, "rows for %u experts do not fit the route before it, which chooses %u", rows.n_used, ids->n_cols);
}

static iq_status check_rms_norm(const check_state *c) {
    const iq_op *op = c->op;
    const row_kind rows = rows_of(c, op->src[0]);
    TRY(check_finite(c));
    TRY(check_source(c, 0, rows));
    TRY(check_buffer(c, "dst", 0, op->dst[0], rows));
    const uint32_t n_cols = c->program->buffers[op->src[0]].n_cols;
    TRY(check_cols(c, "dst", 0, op->dst[0], n_cols));
    if (op->f[0] < 0) return bad(c, "f0 (eps) is %g, it may not be negative", (double)op->f[0]);
    if (op->head_dim <= 0 || n_cols % (uint32_t)op->head_dim != 0) {
        return bad(c, "head_dim %d must divide the %u columns", op->head_dim, n_cols);
    }
    return op->weight[0] == -1 ? IQ_OK : check_vector(c, "weight", 0, op->weight[0], (uint64_t)op->head_dim);
}

/* Rows that were dealt to experts meet as many matrices as the last ROUTE chose among; others meet one. */
static iq_status check_experts(const check_state *c, int slot, const iq_weight *w) {
    const row_kind rows = rows_of(c, c->op->src[0]);
    if (rows.n_used == 0) {
        if (w->n_expert == 0) return IQ_OK;
        return bad(c, "weight%d (weight %d) has experts, src0 has no rows for them", slot, c->op->weight[slot]);
    }
    TRY(check_dealt(c, rows));
    const uint32_t n_expert = c->program->buffers[c->route->src[0]].n_cols;
    if (w->n_expert != n_expert) {
        return bad(c, "weight%d (weight %d) has %llu experts, the route chooses among %u", slot, c->op->weight[slot],
                   (unsigned long long)w->n_expert, n_expert);
    }
    return c->op->bias[slot] == -1 ? IQ_OK : bad(c, "bias%d: experts cannot have a bias", slot);
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
    TRY(check_experts(c, slot, w));
    return bias == -1 ? IQ_OK : check_vector(c, "bias", slot, bias, w->n_rows);
}

static iq_status check_matmul(const check_state *c) {
    const iq_op *op = c->op;
    const row_kind rows = rows_of(c, op->src[0]);
    TRY(check_source(c, 0, rows));
    if (op->n < 1 || op->n > IQ_OP_SLOTS) return bad(c, "n is %d, 1 to %d weights are possible", op->n, IQ_OP_SLOTS);
    for (int i = 0; i < op->n; i++) {
        const bool add = (op->flags & IQ_FLAG_ADD) != 0;
        TRY(add ? check_in_place(c, i, rows) : check_buffer(c, "dst", i, op->dst[i], rows));
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
    const row_kind rows = rows_of(c, op->src[0]);
    TRY(check_source(c, 0, rows));
    if (op->n != 2) return bad(c, "n is %d, a gate and an up weight are needed", op->n);
    TRY(check_buffer(c, "dst", 0, op->dst[0], rows));
    TRY(check_distinct(c, 0, op->src[0]));
    TRY(check_multiplied(c, 0, 0));
    return check_multiplied(c, 1, 0);
}

static iq_status check_rope_table(const check_state *c) {
    const iq_op *op = c->op;
    TRY(check_finite(c));
    TRY(check_buffer(c, "dst", 0, op->dst[0], tokens));
    if (op->n_rot < 2 || op->n_rot % 2 != 0) return bad(c, "n_rot is %d, an even number is needed", op->n_rot);
    TRY(check_cols(c, "dst", 0, op->dst[0], (uint64_t)op->n_rot));
    return check_vector(c, "weight", 0, op->weight[0], (uint64_t)op->n_rot / 2);
}

static iq_status check_rope(const check_state *c) {
    const iq_op *op = c->op;
    TRY(check_source(c, 0, tokens));
    TRY(check_in_place(c, 0, tokens));
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
        TRY(check_source(c, i, tokens));
        TRY(check_distinct(c, 0, op->src[i]));
        const uint64_t n_head = (uint64_t)(i == 0 ? op->n_head : op->n_head_kv);
        TRY(check_cols(c, "src", i, op->src[i], n_head * (uint64_t)op->head_dim));
    }
    TRY(check_buffer(c, "dst", 0, op->dst[0], tokens));
    TRY(check_cols(c, "dst", 0, op->dst[0], (uint64_t)op->n_head * (uint64_t)op->head_dim));
    if (op->layer < 0 || (uint32_t)op->layer >= c->program->n_layer) {
        return bad(c, "layer is %d, the KV cache has %u", op->layer, c->program->n_layer);
    }
    if (c->cached[op->layer]) return bad(c, "layer %d of the KV cache is already used by another op", op->layer);
    c->cached[op->layer] = true;
    return IQ_OK;
}

static iq_status check_add(const check_state *c) {
    const row_kind rows = rows_of(c, c->op->src[0]);
    TRY(check_source(c, 0, rows));
    TRY(check_in_place(c, 0, rows));
    TRY(check_distinct(c, 0, c->op->src[0]));
    return check_cols(c, "dst", 0, c->op->dst[0], c->program->buffers[c->op->src[0]].n_cols);
}

static iq_status check_route(check_state *c) {
    const iq_op *op = c->op;
    const row_kind rows = {rows_of(c, op->src[0]).domain, 0};
    TRY(check_finite(c));
    TRY(check_source(c, 0, rows));
    for (int i = 0; i < 2; i++) {
        TRY(check_buffer(c, "dst", i, op->dst[i], rows));
        TRY(check_distinct(c, i, op->src[0]));
    }
    if (op->dst[0] == op->dst[1]) return bad(c, "dst0 and dst1 are the same buffer %d", op->dst[0]);
    const uint32_t n_expert = c->program->buffers[op->src[0]].n_cols, n_used = c->program->buffers[op->dst[0]].n_cols;
    if (n_used > n_expert || n_expert > IQ_MAX_EXPERTS) {
        return bad(c, "%u of %u experts cannot be chosen: there are at most %d", n_used, n_expert, IQ_MAX_EXPERTS);
    }
    c->route = op;
    return check_cols(c, "dst", 1, op->dst[1], n_used);
}

static iq_status check_deal(const check_state *c) {
    const iq_op *op = c->op;
    const row_kind rows = {rows_of(c, op->src[0]).domain, 0};
    TRY(check_source(c, 0, rows));
    if (!c->route) return bad(c, "nothing was routed before it: src0 (buffer %d) has no way to go", op->src[0]);
    const uint32_t n_used = c->program->buffers[c->route->dst[0]].n_cols;
    TRY(check_buffer(c, "dst", 0, op->dst[0], (row_kind){rows.domain, n_used}));
    TRY(check_dealt(c, rows_of(c, op->dst[0])));
    return check_cols(c, "dst", 0, op->dst[0], c->program->buffers[op->src[0]].n_cols);
}

static iq_status check_collect(check_state *c) {
    const iq_op *op = c->op;
    const row_kind rows = rows_of(c, op->src[0]), whole = {rows.domain, 0};
    TRY(check_source(c, 0, rows));
    TRY(check_dealt(c, rows));
    TRY(check_source(c, 1, whole));
    TRY(check_in_place(c, 0, whole));
    TRY(check_distinct(c, 0, op->src[1]));
    TRY(check_cols(c, "src", 1, op->src[1], rows.n_used));
    TRY(check_cols(c, "dst", 0, op->dst[0], c->program->buffers[op->src[0]].n_cols));
    c->route = NULL;
    return IQ_OK;
}

static iq_status check_op(check_state *c) {
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
    case IQ_OP_ROUTE: return check_route(c);
    case IQ_OP_DEAL: return check_deal(c);
    case IQ_OP_COLLECT: return check_collect(c);
    default: return bad(c, "there is no op of kind %d", c->op->kind);
    }
}

static void mark_written(const check_state *c) {
    const int n = iq_op_results(c->op);
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
        if (b->n_used > IQ_MAX_EXPERTS) {
            return iq_fail(error, IQ_ERR_ARGUMENT, "buffer %u has rows for %u experts, at most %d are possible", i,
                           b->n_used, IQ_MAX_EXPERTS);
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
        const uint64_t n_rows = iq_mul_u64(w->n_rows, w->n_expert ? w->n_expert : 1);
        const bool fits = iq_mul_u64(row_bytes, n_rows) <= PTRDIFF_MAX && w->n_expert <= IQ_MAX_EXPERTS;
        if (row_bytes == 0 || w->n_rows == 0 || !fits) {
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
    const iq_buffer *b = &p->buffers[p->output];
    if (b->domain != IQ_ROWS_OUTPUTS || b->n_used > 0 || !c->written[p->output]) {
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
