/* Matmul stages: a chunk is a range of one weight's rows times a tile of tokens. */
#include "engine/companion.h"
#include "engine/stage.h"

#define DECODE_TOKENS 8       /* up to here a chunk's cost is reading its weights */
#define MIN_CHUNK_BYTES 8192  /* decode: below, claiming a chunk would show */
#define MAX_CHUNK_BYTES 98304 /* decode: above, threads would finish too far apart */
#define TILE_BYTES 4194304    /* prefill: activations of one tile; unpacking is shared by its tokens */
#define TILE_UNIT 64
#define MAX_ROWS 256        /* prefill: as many as the kernels unpack at a time */
#define CHUNKS_PER_THREAD 4 /* enough for threads of unequal speed */
#define BAND_UNIT 16        /* decode: half a chunk's rows are a multiple of it: a cache line of results */

/* Rows of the weight in a slot, and where their results go */
typedef struct {
    uint32_t slot, first_row, n_rows;
    const uint8_t *rows;
    float *y;
    size_t y_stride;
} row_band;

/* Two bands: the same rows of two weights (gated), or rows of a matrix's first half and of its second, or none of it. */
typedef struct {
    row_band bands[2];
    uint32_t tile, first_token, n_tokens, expert;
} matmul_part;

/* Bytes from row to row of an op's input, as its weight `slot` reads it. */
static size_t x_stride(const iq_context *c, const iq_op *op, uint32_t slot) {
    const iq_program_weight *w = &c->program->weights[op->weight[slot]];
    if (w->kernels->x_kind == IQ_X_Q8) return iq_q8_blocks(w->n_cols) * sizeof(iq_q8_block);
    return iq_buffer_stride(c->program, op->src[0]) * sizeof(float);
}

static bool is_gated(const iq_stage_run *run) { return run->stage->kind == IQ_STAGE_GATED_MATMUL; }

/* A gated matmul walks the rows of its two weights together. */
static int n_ranges(const iq_stage_run *run) { return is_gated(run) ? 1 : run->op->n; }

static uint64_t total_rows(const iq_context *c, const iq_stage_run *run) {
    uint64_t rows = 0;
    for (int i = 0; i < n_ranges(run); i++) rows += c->program->weights[run->op->weight[i]].n_rows;
    return rows;
}

static uint64_t total_bytes(const iq_context *c, const iq_stage_run *run) {
    uint64_t bytes = 0;
    for (int i = 0; i < run->op->n; i++) {
        const iq_program_weight *w = &c->program->weights[run->op->weight[i]];
        bytes += (uint64_t)w->n_rows * w->row_bytes;
    }
    return bytes;
}

static uint64_t decode_rows(const iq_context *c, const iq_stage_run *run) {
    const uint64_t bytes = total_bytes(c, run), rows = total_rows(c, run), row_bytes = bytes / rows + 1;
    uint64_t chunk = bytes * run->n_tiles / (c->params.n_threads * CHUNKS_PER_THREAD);
    if (chunk > MAX_CHUNK_BYTES) chunk = MAX_CHUNK_BYTES;
    if (chunk < MIN_CHUNK_BYTES) chunk = MIN_CHUNK_BYTES;
    return chunk / row_bytes;
}

static uint64_t prefill_rows(const iq_context *c, const iq_stage_run *run) {
    const uint64_t rows = total_rows(c, run) * run->n_tiles / (c->params.n_threads * CHUNKS_PER_THREAD);
    return rows < MAX_ROWS ? rows : MAX_ROWS;
}

static bool has_experts(const iq_context *c, const iq_stage_run *run) {
    return c->program->buffers[run->op->src[0]].n_used > 0;
}

static uint32_t tile_tokens(const iq_context *c, const iq_stage_run *run) {
    const size_t stride = x_stride(c, run->op, 0);
    const size_t fits = TILE_BYTES / stride / TILE_UNIT * TILE_UNIT;
    const size_t gated = is_gated(run) ? IQ_TEMP_FLOATS / MAX_ROWS : SIZE_MAX;
    return (uint32_t)iq_min_size(iq_min_size(fits < TILE_UNIT ? TILE_UNIT : fits, gated), run->n_rows);
}

/* Rows of a matrix in front of its second band; all of them if it has none. */
static uint32_t first_band(const iq_stage_run *run, uint32_t n_rows) {
    return run->in_bands ? (uint32_t)iq_min_size(iq_round_up((n_rows + 1) / 2, BAND_UNIT), n_rows) : n_rows;
}

/* Chunks of so many rows, of each band if there are two */
static uint32_t cut_rows(iq_context *c, uint32_t rows_per_chunk) {
    iq_stage_run *run = &c->run;
    run->units_per_chunk = rows_per_chunk;
    run->first_chunk[0] = 0;
    uint64_t n = 0;
    for (int i = 0; i < n_ranges(run); i++) {
        const uint64_t n_rows = first_band(run, c->program->weights[run->op->weight[i]].n_rows);
        n += (n_rows + rows_per_chunk - 1) / rows_per_chunk;
        run->first_chunk[i + 1] = (uint32_t)iq_min_size(n, UINT32_MAX);
    }
    run->chunks_per_tile = run->first_chunk[n_ranges(run)];
    return (uint32_t)iq_min_size(n * run->n_tiles, UINT32_MAX);
}

/* No chunk reaches across two pieces of a stream, whose rows are IQ_ROW_UNIT times a power of two. */
static uint32_t prepare_streamed(iq_context *c, uint64_t wanted_rows) {
    const iq_stage_run *run = &c->run;
    const uint32_t op = run->stage->op, most = iq_stream_op_at(c->stream, op)->n_rows;
    uint32_t rows = IQ_ROW_UNIT, n_chunks;
    while (2 * (uint64_t)rows <= wanted_rows && 2 * rows <= most) rows *= 2;
    while ((n_chunks = cut_rows(c, rows)) > IQ_POOL_MAX_CHUNKS) rows *= 2; /* ends: there are fewer pieces than that */
    iq_stream_expect(c->stream, op, has_experts(c, run) ? c->routing.first : NULL);
    atomic_store_explicit(&c->next_chunk, 0, memory_order_relaxed);
    return n_chunks;
}

/* Streamed weights are there once: a tile then has all rows that a matrix multiplies. */
uint32_t iq_matmul_prepare(iq_context *context) {
    iq_stage_run *run = &context->run;
    run->tokens_per_tile = context->stream ? run->n_rows : tile_tokens(context, run);
    run->n_tiles = has_experts(context, run) ? iq_cut_experts(&context->routing, run->tokens_per_tile)
                                             : iq_div_up(run->n_rows, run->tokens_per_tile);
    const bool decode = run->n_rows / run->n_tiles <= DECODE_TOKENS;
    const uint64_t wanted = decode ? decode_rows(context, run) : prefill_rows(context, run);
    run->in_bands = decode && !context->stream && !is_gated(run);
    if (context->stream) return prepare_streamed(context, wanted);
    const uint64_t unit = run->in_bands ? BAND_UNIT : IQ_ROW_UNIT, least = run->in_bands ? wanted / 2 : wanted;
    uint32_t rows = (uint32_t)iq_round_up(least == 0 ? 1 : least, unit);
    uint32_t n_chunks;
    while ((n_chunks = cut_rows(context, rows)) > IQ_POOL_MAX_CHUNKS) rows *= 2;
    return n_chunks;
}

static matmul_part part_of(const iq_context *c, const iq_stage_run *run, uint32_t chunk) {
    matmul_part part = {.tile = chunk / run->chunks_per_tile};
    const uint32_t at = chunk % run->chunks_per_tile;
    uint32_t slot = 0;
    while (at >= run->first_chunk[slot + 1]) slot++;
    const uint32_t n_rows = c->program->weights[run->op->weight[slot]].n_rows, end = first_band(run, n_rows);
    const uint32_t first = (at - run->first_chunk[slot]) * run->units_per_chunk, more = end + first;
    const uint32_t n = (uint32_t)iq_min_size(run->units_per_chunk, end - first);
    part.bands[0] = (row_band){.slot = slot, .first_row = first, .n_rows = n};
    if (is_gated(run)) {
        part.bands[1] = (row_band){.slot = slot + 1, .first_row = first, .n_rows = n};
    } else if (more < n_rows) {
        part.bands[1] = (row_band){.slot = slot, .first_row = more, .n_rows = (uint32_t)iq_min_size(n, n_rows - more)};
    }
    if (has_experts(c, run)) {
        const iq_expert_tile *tile = &c->routing.tiles[part.tile];
        part.first_token = tile->first;
        part.n_tokens = tile->n;
        part.expert = tile->expert;
    } else {
        part.first_token = part.tile * run->tokens_per_tile;
        part.n_tokens = (uint32_t)iq_min_size(run->tokens_per_tile, run->n_rows - part.first_token);
    }
    return part;
}

static const void *x_of(const iq_context *c, const iq_program_weight *w, int32_t buffer, uint32_t token) {
    if (w->kernels->x_kind == IQ_X_F32) return iq_buffer_row(c, buffer, token);
    return iq_companion_at(c, buffer, w->kernels->order, token);
}

static iq_matmul_shape shape_of(const iq_context *c, int32_t buffer) {
    if (c->batch.way == IQ_STEP_AUTO) return IQ_SHAPE_AUTO;
    const bool outputs = c->program->buffers[buffer].domain == IQ_ROWS_OUTPUTS;
    return c->batch.way == IQ_STEP_PREFILL && !outputs ? IQ_SHAPE_MANY : IQ_SHAPE_FEW;
}

/* Tells whether the thread's scratch memory holds the tokens of the part already, as a kernel wants them; it will. */
static bool packed_before(iq_context *c, const matmul_part *part, const iq_format_kernels *kernels, uint32_t thread) {
    iq_packed_x *last = &c->threads[thread].packed;
    const bool same = last->stage == c->run.number && last->kernels == kernels &&
                      last->first_token == part->first_token && last->n_tokens == part->n_tokens;
    *last = (iq_packed_x){c->run.number, kernels, part->first_token, part->n_tokens};
    return same;
}

static void add_bias(const iq_context *c, const row_band *band, size_t n_tokens) {
    const int32_t bias = c->run.op->bias[band->slot];
    if (bias < 0) return;
    const float *x = c->program->weights[bias].vector + band->first_row;
    for (size_t i = 0; i < n_tokens; i++) c->kernels->add(x, band->n_rows, band->y + i * band->y_stride);
}

/* y[token][row] of the bands, with their biases; the second one, of the same type, may be empty. */
static void multiply(iq_context *c, const matmul_part *part, const row_band *first, const row_band *more, bool add,
                     uint32_t thread) {
    const iq_op *op = c->run.op;
    const iq_program_weight *w = &c->program->weights[op->weight[first->slot]];
    w->kernels->matmul(&(iq_matmul_task){
        .rows = first->rows,
        .row_bytes = w->row_bytes,
        .n_rows = first->n_rows,
        .n_cols = w->n_cols,
        .x = x_of(c, w, op->src[0], part->first_token),
        .x_stride = x_stride(c, op, first->slot),
        .panels = w->kernels->x_kind == IQ_X_Q8 && iq_in_panels(c, op->src[0]),
        .n_tokens = part->n_tokens,
        .y = first->y,
        .y_stride = first->y_stride,
        .more_rows = more->rows,
        .more_y = more->y,
        .n_more = more->n_rows,
        .more_y_stride = more->y_stride,
        .scratch = c->threads[thread].scratch,
        .packed = packed_before(c, part, w->kernels, thread),
        .add = add,
        .shape = shape_of(c, op->src[0]),
    });
    add_bias(c, first, part->n_tokens);
    if (more->n_rows > 0) add_bias(c, more, part->n_tokens);
}

static void gated_chunk(iq_context *c, matmul_part *part, uint32_t thread) {
    const iq_stage *stage = c->run.stage;
    row_band *gate = &part->bands[0], *up = &part->bands[1];
    const size_t first_row = gate->first_row, n_rows = gate->n_rows;
    gate->y = iq_buffer_row(c, stage->buffer, part->first_token) + first_row;
    gate->y_stride = iq_buffer_stride(c->program, stage->buffer);
    up->y = c->threads[thread].temp;
    up->y_stride = n_rows;
    const iq_program_weight *weights = c->program->weights;
    const int32_t *weight = c->run.op->weight;
    if (weights[weight[0]].kernels == weights[weight[1]].kernels) {
        multiply(c, part, gate, up, false, thread);
    } else {
        multiply(c, part, gate, &(row_band){0}, false, thread);
        multiply(c, part, up, &(row_band){0}, false, thread);
    }
    for (size_t i = 0; i < part->n_tokens; i++) {
        float *out = gate->y + i * gate->y_stride;
        c->kernels->silu_mul(out, up->y + i * n_rows, n_rows, out);
    }
    iq_companion_columns(c, stage, part->tile, part->first_token, part->n_tokens, first_row, first_row + n_rows);
}

static void multiply_part(iq_context *c, matmul_part *part, uint32_t thread) {
    const iq_op *op = c->run.op;
    if (is_gated(&c->run)) {
        gated_chunk(c, part, thread);
        return;
    }
    const int32_t dst = op->dst[part->bands[0].slot];
    for (int i = 0; i < 2; i++) {
        part->bands[i].y = iq_buffer_row(c, dst, part->first_token) + part->bands[i].first_row;
        part->bands[i].y_stride = iq_buffer_stride(c->program, dst);
    }
    multiply(c, part, &part->bands[0], &part->bands[1], (op->flags & IQ_FLAG_ADD) != 0, thread);
}

/* The part in tiles that fit the cache. A tile is numbered by its first token: no other has that number. */
static void multiply_in_tiles(iq_context *c, matmul_part part, uint32_t thread) {
    const uint32_t most = tile_tokens(c, &c->run), end = part.first_token + part.n_tokens;
    for (; part.first_token < end; part.first_token += part.n_tokens) {
        part.tile = part.first_token;
        part.n_tokens = (uint32_t)iq_min_size(most, end - part.first_token);
        multiply_part(c, &part, thread);
    }
}

/* A read that failed ends the step as if it were cancelled. */
static void streamed_chunk(iq_context *c, uint32_t thread) {
    const uint32_t op = c->run.stage->op;
    matmul_part part = part_of(c, &c->run, atomic_fetch_add_explicit(&c->next_chunk, 1, memory_order_relaxed));
    for (int i = 0; i < 2 && part.bands[i].n_rows > 0; i++) {
        row_band *band = &part.bands[i];
        band->rows = iq_stream_rows(c->stream, op, band->slot, part.expert, band->first_row, &c->cancelled);
        if (band->rows) continue;
        iq_context_cancel(c);
        return;
    }
    multiply_in_tiles(c, part, thread);
    for (int i = 0; i < 2 && part.bands[i].n_rows > 0; i++) {
        const row_band *band = &part.bands[i];
        iq_stream_done(c->stream, op, band->slot, part.expert, band->first_row, band->n_rows);
    }
}

void iq_matmul_chunk(iq_context *context, uint32_t chunk, uint32_t thread) {
    const iq_stage_run *run = &context->run;
    if (context->stream) {
        streamed_chunk(context, thread);
        return;
    }
    matmul_part part = part_of(context, run, chunk);
    for (int i = 0; i < 2 && part.bands[i].n_rows > 0; i++) {
        row_band *band = &part.bands[i];
        const iq_program_weight *w = &context->program->weights[run->op->weight[band->slot]];
        band->rows = w->data + (part.expert * w->n_rows + band->first_row) * w->row_bytes;
    }
    multiply_part(context, &part, thread);
}
