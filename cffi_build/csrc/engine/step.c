/* One step: the batch is checked and given places in the KV cache, stages run, the batch is kept or forgotten. */
#define _DEFAULT_SOURCE 1 /* clock_gettime in wait.h */
#include "engine/companion.h"
#include "engine/stage.h"
#include "engine/wait.h"

/* ---- the batch ---------------------------------------------------------------------------------------------- */

static iq_status check_batch(const iq_context *c, const iq_batch *in, iq_error *error) {
    if (!in || in->n_tokens == 0 || !in->token || !in->seq) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "a step needs at least one token, and a sequence for each");
    }
    if (in->n_tokens > c->params.n_batch) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "the batch has %u tokens, n_batch is %u: split it", in->n_tokens,
                       c->params.n_batch);
    }
    for (uint32_t i = 0; i < in->n_tokens; i++) {
        if (in->token[i] < 0 || (uint32_t)in->token[i] >= c->program->n_vocab) {
            return iq_fail(error, IQ_ERR_ARGUMENT, "token %u of the batch has the id %d, the vocabulary has %u", i,
                           in->token[i], c->program->n_vocab);
        }
        if (in->seq[i] < 0 || (uint32_t)in->seq[i] >= c->params.n_seq) {
            return iq_fail(error, IQ_ERR_ARGUMENT, "token %u of the batch is for sequence %d, there are %u", i,
                           in->seq[i], c->params.n_seq);
        }
    }
    if (in->way < IQ_STEP_AUTO || in->way > IQ_STEP_PREFILL) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "there is no way %d to do a step", in->way);
    }
    return IQ_OK;
}

static void place_tokens(iq_context *c, const iq_batch *in) {
    iq_step_batch *b = &c->batch;
    b->n_tokens = in->n_tokens;
    b->way = (iq_step_way)in->way;
    memset(b->n_new, 0, c->params.n_seq * sizeof *b->n_new);
    for (uint32_t i = 0; i < in->n_tokens; i++) {
        b->token[i] = in->token[i];
        b->seq[i] = (uint32_t)in->seq[i];
        b->pos[i] = c->kv.length[b->seq[i]] + b->n_new[b->seq[i]]++;
    }
}

static void note_outputs(iq_step_batch *b, const uint8_t *want) {
    b->n_outputs = 0;
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        if (want ? want[i] != 0 : i + 1 == b->n_tokens) b->output[b->n_outputs++] = i;
    }
}

static void cut_tiles(iq_step_batch *b, uint32_t max_group) {
    uint32_t most = IQ_TILE_QUERIES / max_group;
    if (most < 1) most = 1;
    if (most > IQ_TILE_TOKENS) most = IQ_TILE_TOKENS;
    b->n_tiles = 0;
    for (uint32_t i = 0; i < b->n_tokens; i++) {
        iq_tile *tile = b->n_tiles > 0 ? &b->tiles[b->n_tiles - 1] : NULL;
        if (tile && tile->seq == b->seq[i] && tile->n < most) {
            tile->n++;
        } else {
            b->tiles[b->n_tiles++] = (iq_tile){.seq = b->seq[i], .first = i, .n = 1};
        }
    }
}

static iq_status begin(iq_context *c, const iq_batch *in, iq_error *error) {
    if (c->stepping) return iq_fail(error, IQ_ERR_ARGUMENT, "a step is open: call iq_step_end before the next one");
    iq_status status = check_batch(c, in, error);
    if (status != IQ_OK) return status;
    place_tokens(c, in);
    status = iq_kv_reserve(&c->kv, c->batch.n_new, error);
    if (status != IQ_OK) {
        c->batch.n_tokens = c->batch.n_outputs = 0;
        return status;
    }
    note_outputs(&c->batch, in->want);
    cut_tiles(&c->batch, c->program->max_group);
    c->stepping = true;
    c->failed = c->skipped = false;
    c->next_op = 0;
    atomic_store_explicit(&c->cancelled, false, memory_order_relaxed);
    return IQ_OK;
}

/* ---- stages ------------------------------------------------------------------------------------------------- */

static bool is_cancelled(iq_context *c) { return atomic_load_explicit(&c->cancelled, memory_order_relaxed); }

/* Charges the time since the last mark to the op whose stage is over. */
static void note_time(iq_context *c) {
    const uint64_t now = iq_now_ns();
    if (c->run.stage) c->seconds[c->run.stage->op] += (double)(now - c->profile_start) * 1e-9;
    c->profile_start = now;
}

static void run_chunk(void *user, uint32_t chunk, uint32_t thread) {
    iq_context *c = user;
    if (!is_cancelled(c)) iq_stage_chunk(c, chunk, thread);
}

/* Runs what needs no second thread on the spot; returns the chunks of the first stage that does. */
static uint32_t next_stage(void *user, uint32_t thread) {
    iq_context *c = user;
    for (;;) {
        if (c->profiling) note_time(c);
        if (is_cancelled(c)) {
            c->failed = true;
            return 0;
        }
        if (c->next_stage == c->end_stage) return 0;
        const uint32_t n_chunks = iq_stage_prepare(c, &c->program->stages[c->next_stage++]);
        if (n_chunks > 1) return n_chunks;
        if (n_chunks == 1) iq_stage_chunk(c, 0, thread);
    }
}

static iq_status why_failed(iq_context *c, iq_error *error) {
    const iq_status status = c->stream ? iq_stream_failure(c->stream, error) : IQ_OK;
    return status != IQ_OK ? status : iq_fail(error, IQ_ERR_CANCELLED, "the step was cancelled");
}

static iq_status run(iq_context *c, uint32_t first_op, uint32_t last_op, iq_error *error) {
    if (!c->stepping) return iq_fail(error, IQ_ERR_ARGUMENT, "no step is open: call iq_step_begin first");
    if (c->failed) return iq_fail(error, IQ_ERR_CANCELLED, "the step was cancelled: end it");
    if (first_op != c->next_op || last_op < first_op || last_op > c->program->n_op) {
        return iq_fail(error, IQ_ERR_ARGUMENT,
                       "ops %u to %u cannot run now: the next op is %u of %u, and ops run in order", first_op, last_op,
                       c->next_op, c->program->n_op);
    }
    iq_status status = c->stream ? iq_stream_enter(c->stream, error) : IQ_OK;
    if (status != IQ_OK) return status;
    c->next_stage = c->program->first_stage[first_op];
    c->end_stage = c->program->first_stage[last_op];
    c->run.stage = NULL;
    if (c->profiling) c->profile_start = iq_now_ns();
    iq_pool_run(c->pool, &(iq_pool_work){.next_stage = next_stage, .run_chunk = run_chunk, .user = c});
    status = c->failed ? why_failed(c, error) : IQ_OK;
    if (c->stream) iq_stream_leave(c->stream, !c->failed);
    if (!c->failed) c->next_op = last_op;
    return status;
}

/* A batch whose keys and values are not all in the cache is never kept. */
static void end(iq_context *c, bool commit) {
    if (!c->stepping) return;
    if (commit && !c->failed && !c->skipped && c->next_op >= c->program->n_op_caching) {
        iq_kv_commit(&c->kv);
    } else {
        iq_kv_rollback(&c->kv);
    }
    if (c->failed) {
        iq_companion_reset(c);
        iq_attend_reset(c);
    }
    c->stepping = false;
}

static iq_status run_all(iq_context *c, const iq_batch *in, float *output, iq_error *error) {
    iq_status status = begin(c, in, error);
    if (status != IQ_OK) return status;
    if (c->batch.n_outputs > 0 && !output) {
        status = iq_fail(error, IQ_ERR_ARGUMENT, "no place for %u outputs was given", c->batch.n_outputs);
    } else {
        if (output) c->buffers[c->program->output] = output;
        status = run(c, 0, c->program->n_op, error);
        c->buffers[c->program->output] = c->own_output;
    }
    end(c, status == IQ_OK);
    return status;
}

/* ---- the API ------------------------------------------------------------------------------------------------ */

iq_status iq_step(iq_context *context, const iq_batch *batch, float *output, iq_error *error) {
    iq_status status = iq_context_enter(context, error);
    if (status != IQ_OK) return status;
    status = run_all(context, batch, output, error);
    iq_context_leave(context);
    return status;
}

iq_status iq_step_begin(iq_context *context, const iq_batch *batch, iq_error *error) {
    iq_status status = iq_context_enter(context, error);
    if (status != IQ_OK) return status;
    status = begin(context, batch, error);
    iq_context_leave(context);
    return status;
}

iq_status iq_step_run(iq_context *context, uint32_t first_op, uint32_t last_op, iq_error *error) {
    iq_status status = iq_context_enter(context, error);
    if (status != IQ_OK) return status;
    status = run(context, first_op, last_op, error);
    iq_context_leave(context);
    return status;
}

void iq_step_end(iq_context *context, int commit) {
    if (iq_context_enter(context, NULL) != IQ_OK) return;
    end(context, commit != 0);
    iq_context_leave(context);
}
