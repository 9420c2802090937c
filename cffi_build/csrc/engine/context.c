#include "engine/companion.h"

#include <stdlib.h>

#define GIB 1073741824.0

static void allocate_buffers(iq_context *c, const iq_program *p, iq_memory *m, uint64_t n_batch) {
    float **buffers = iq_memory_take(m, p->n_buffer, sizeof *buffers);
    void **companions = iq_memory_take_zeroed(m, iq_mul_u64(p->n_buffer, IQ_ORDERS), sizeof *companions);
    size_t widest = 0;
    for (uint32_t i = 0; i < p->n_buffer; i++) {
        const size_t n_block = iq_q8_blocks(p->buffers[i].n_cols);
        const uint64_t n_row = iq_mul_u64(n_batch, p->buffers[i].n_used ? p->buffers[i].n_used : 1);
        float *rows = iq_memory_take(m, iq_mul_u64(n_row, iq_buffer_stride(p, (int32_t)i)), sizeof(float));
        if (buffers) buffers[i] = rows;
        for (uint32_t order = 0; order < IQ_ORDERS; order++) {
            if (!(p->buffer_orders[i] >> order & 1)) continue;
            if (n_block > widest) widest = n_block;
            void *companion = iq_memory_take(m, iq_companion_bytes(p, (int32_t)i, n_row), 1);
            if (companions) companions[i * IQ_ORDERS + order] = companion;
        }
    }
    c->buffers = buffers;
    c->companions = companions;
    c->n_counter = iq_mul_u64(n_batch, widest);
    c->n_cols_done = iq_memory_take_zeroed(m, c->n_counter, sizeof *c->n_cols_done);
}

static void allocate_batch(iq_step_batch *b, iq_memory *m, const iq_context_params *params) {
    b->token = iq_memory_take(m, params->n_batch, sizeof *b->token);
    b->seq = iq_memory_take(m, params->n_batch, sizeof *b->seq);
    b->pos = iq_memory_take(m, params->n_batch, sizeof *b->pos);
    b->output = iq_memory_take(m, params->n_batch, sizeof *b->output);
    b->tiles = iq_memory_take(m, params->n_batch, sizeof *b->tiles);
    b->n_new = iq_memory_take(m, params->n_seq, sizeof *b->n_new);
}

static void allocate_routing(iq_routing *r, iq_memory *m, const iq_program *p, uint64_t n_batch) {
    const uint64_t n_dealt = iq_mul_u64(n_batch, p->max_used);
    r->expert = iq_memory_take(m, n_dealt, sizeof *r->expert);
    r->place = iq_memory_take(m, n_dealt, sizeof *r->place);
    r->source = iq_memory_take(m, n_dealt, sizeof *r->source);
    r->tiles = iq_memory_take(m, n_dealt, sizeof *r->tiles);
    r->first = iq_memory_take(m, (uint64_t)p->max_expert + 1, sizeof *r->first);
}

static void allocate_threads(iq_context *c, const iq_program *p, iq_memory *m, const iq_context_params *params) {
    const uint64_t n_query = p->max_group > IQ_TILE_QUERIES ? p->max_group : IQ_TILE_QUERIES;
    const uint64_t n_float = n_query * p->max_head_dim;
    iq_thread_memory *threads = iq_memory_take(m, params->n_threads, sizeof *threads);
    for (uint32_t i = 0; i < params->n_threads; i++) {
        iq_thread_memory t = {.packed = {0}};
        t.scratch = iq_memory_take(m, IQ_SCRATCH_BYTES, 1);
        t.temp = iq_memory_take(m, IQ_TEMP_FLOATS, sizeof *t.temp);
        t.n_visible = iq_memory_take(m, n_query, sizeof *t.n_visible);
        t.queries = iq_memory_take(m, n_float, sizeof *t.queries);
        t.totals = iq_memory_take(m, n_float, sizeof *t.totals);
        t.parts = iq_memory_take(m, n_float, sizeof *t.parts);
        t.total_norms = iq_memory_take(m, n_query, sizeof *t.total_norms);
        t.part_norms = iq_memory_take(m, n_query, sizeof *t.part_norms);
        if (threads) threads[i] = t;
    }
    c->threads = threads;
}

static void allocate_split(iq_split_memory *s, const iq_program *p, iq_memory *m, const iq_context_params *params) {
    const uint64_t n_token = params->n_batch < IQ_SPLIT_TOKENS ? params->n_batch : IQ_SPLIT_TOKENS;
    const uint64_t most_ranges = ((uint64_t)params->n_ctx + IQ_ATTEND_RANGE - 1) / IQ_ATTEND_RANGE;
    const uint64_t n_range = params->n_threads > 1 ? most_ranges : 0;
    s->n_row = s->n_task = n_token * p->max_head;
    s->sums = iq_memory_take(m, iq_mul_u64(n_range, iq_mul_u64(s->n_row, p->max_head_dim)), sizeof *s->sums);
    s->norms = iq_memory_take(m, iq_mul_u64(n_range, s->n_row), sizeof *s->norms);
    s->n_done = iq_memory_take_zeroed(m, s->n_task, sizeof *s->n_done);
}

/* The one walk over all memory of a context: counts it, or takes it. */
static void allocate(iq_context *c, const iq_program *p, iq_memory *m, const iq_context_params *params) {
    allocate_buffers(c, p, m, params->n_batch);
    allocate_batch(&c->batch, m, params);
    allocate_routing(&c->routing, m, p, params->n_batch);
    allocate_threads(c, p, m, params);
    allocate_split(&c->split, p, m, params);
    c->seconds = iq_memory_take_zeroed(m, p->n_op, sizeof *c->seconds);
    iq_kv_allocate(&c->kv, m, p, params);
}

static iq_status check_params(const iq_program *p, const iq_context_params *params, iq_error *error) {
    if (!p || !params) return iq_fail(error, IQ_ERR_ARGUMENT, "a context needs a program and parameters");
    if (params->n_ctx < 1 || params->n_ctx > INT32_MAX - IQ_KV_BLOCK || params->n_batch < 1 || params->n_seq < 1) {
        return iq_fail(error, IQ_ERR_ARGUMENT,
                       "n_ctx %u, n_batch %u and n_seq %u must be at least 1 and n_ctx below 2^31", params->n_ctx,
                       params->n_batch, params->n_seq);
    }
    if (params->n_threads < 1 || params->n_threads > IQ_POOL_MAX_THREADS) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "n_threads is %u, 1 to %d are possible", params->n_threads,
                       IQ_POOL_MAX_THREADS);
    }
    for (uint32_t i = 0; i < p->n_layer; i++) {
        if (iq_kv_row_bytes(params->kv_type, p->layers[i].head_dim) > 0) continue;
        return iq_fail(error, IQ_ERR_UNSUPPORTED,
                       "the KV cache cannot store type %d with a head_dim of %u: use f16, q8_0 or f32", params->kv_type,
                       p->layers[i].head_dim);
    }
    return IQ_OK;
}

uint64_t iq_context_bytes(const iq_program *program, const iq_context_params *params) {
    if (check_params(program, params, NULL) != IQ_OK) return UINT64_MAX;
    iq_context unused;
    memset(&unused, 0, sizeof unused);
    iq_memory memory = {.counting = true};
    allocate(&unused, program, &memory, params);
    return iq_add_u64(memory.bytes, sizeof(iq_context) + iq_pool_bytes(params->n_threads));
}

static iq_status check_size(const iq_program *p, const iq_context_params *params, iq_error *error) {
    const uint64_t bytes = iq_context_bytes(p, params), physical = iq_physical_memory();
    if (bytes <= physical && bytes != UINT64_MAX) return IQ_OK;
    return iq_fail(error, IQ_ERR_MEMORY,
                   "the context needs %.1f GiB, this machine has %.1f GiB: make n_ctx (%u) or "
                   "n_batch (%u) smaller",
                   (double)bytes / GIB, (double)physical / GIB, params->n_ctx, params->n_batch);
}

static iq_status build(iq_context *c, iq_error *error) {
    c->memory.small_pages = c->params.small_pages != 0;
    allocate(c, c->program, &c->memory, &c->params);
    if (c->memory.failed) {
        return iq_fail(error, IQ_ERR_MEMORY,
                       "no memory for a context of %.1f GiB: make n_ctx (%u) or n_batch (%u) smaller",
                       (double)iq_context_bytes(c->program, &c->params) / GIB, c->params.n_ctx, c->params.n_batch);
    }
    c->own_output = c->buffers[c->program->output];
    return iq_pool_create(c->params.n_threads, &c->pool, error);
}

iq_status iq_context_create(const iq_program *program, const iq_context_params *params, iq_context **context,
                            iq_error *error) {
    if (!context) return iq_fail(error, IQ_ERR_ARGUMENT, "no place for the context was given");
    iq_status status = check_params(program, params, error);
    if (status == IQ_OK) status = check_size(program, params, error);
    if (status != IQ_OK) return status;
    iq_context *c = calloc(1, sizeof *c);
    if (!c) return iq_fail(error, IQ_ERR_MEMORY, "no memory for a context");
    c->program = program;
    c->kernels = program->kernels;
    c->params = *params;
    status = build(c, error);
    if (status != IQ_OK) {
        iq_context_free(c);
        return status;
    }
    *context = c;
    return IQ_OK;
}

void iq_context_free(iq_context *context) {
    if (!context) return;
    iq_pool_free(context->pool);
    iq_memory_free(&context->memory);
    free(context);
}

iq_status iq_context_enter(iq_context *context, iq_error *error) {
    if (!context) return iq_fail(error, IQ_ERR_ARGUMENT, "there is no context");
    if (!atomic_exchange_explicit(&context->in_call, true, memory_order_acquire)) return IQ_OK;
    return iq_fail(error, IQ_ERR_ARGUMENT, "the context is in use by another thread: give each thread its own context");
}

void iq_context_leave(iq_context *context) { atomic_store_explicit(&context->in_call, false, memory_order_release); }

iq_status iq_context_use_stream(iq_context *context, iq_stream *stream, iq_error *error) {
    const iq_status status = iq_context_enter(context, error);
    if (status != IQ_OK) return status;
    context->stream = stream;
    iq_context_leave(context);
    return IQ_OK;
}

void iq_context_cancel(iq_context *context) {
    if (!context) return;
    atomic_store_explicit(&context->cancelled, true, memory_order_relaxed);
    if (context->stream) iq_stream_wake(context->stream);
}

const float *iq_context_buffer(const iq_context *context, int32_t buffer, uint32_t *n_rows, size_t *stride) {
    if (!context || buffer < 0 || (uint32_t)buffer >= context->program->n_buffer) return NULL;
    if (n_rows) *n_rows = iq_domain_rows(context, buffer);
    if (stride) *stride = iq_buffer_stride(context->program, buffer);
    return context->buffers[buffer];
}

void iq_context_profile(const iq_context *context, double *seconds) {
    memcpy(seconds, context->seconds, context->program->n_op * sizeof *seconds);
}

void iq_context_profile_reset(iq_context *context, int enabled) {
    context->profiling = enabled != 0;
    memset(context->seconds, 0, context->program->n_op * sizeof *context->seconds);
}
