/* Attention: a unit is one tile of tokens times the query heads (or a part of them) of one KV head. */
#include "engine/companion.h"
#include "engine/stage.h"

/* All query heads of a KV head in one unit read its K and V once; with fewer units than threads they are divided. */
static void divide_heads(iq_stage_run *run, uint32_t n_tiles, uint32_t n_threads) {
    const uint32_t n_head_kv = (uint32_t)run->op->n_head_kv, group = (uint32_t)run->op->n_head / n_head_kv;
    uint32_t parts = 1;
    while (n_tiles * n_head_kv * parts < n_threads && parts * 2 <= group) parts *= 2;
    run->heads_per_unit = iq_div_up(group, parts);
    run->units_per_kv_head = iq_div_up(group, run->heads_per_unit);
}

uint32_t iq_attend_prepare(iq_context *context) {
    iq_stage_run *run = &context->run;
    const uint32_t n_tiles = context->batch.n_tiles;
    divide_heads(run, n_tiles, context->params.n_threads);
    run->n_units = n_tiles * (uint32_t)run->op->n_head_kv * run->units_per_kv_head;
    run->units_per_chunk = iq_div_up(run->n_units, IQ_POOL_MAX_CHUNKS);
    return iq_div_up(run->n_units, run->units_per_chunk);
}

typedef struct {
    const iq_tile *tile;
    uint32_t tile_index, kv_head, first_head, n_head;
} attend_part;

static attend_part part_of(const iq_context *c, uint32_t unit) {
    const iq_stage_run *run = &c->run;
    const uint32_t n_tiles = c->batch.n_tiles, group = (uint32_t)(run->op->n_head / run->op->n_head_kv);
    attend_part part = {.tile_index = unit % n_tiles, .tile = &c->batch.tiles[unit % n_tiles]};
    part.kv_head = unit / n_tiles / run->units_per_kv_head;
    const uint32_t skipped = unit / n_tiles % run->units_per_kv_head * run->heads_per_unit;
    part.first_head = part.kv_head * group + skipped;
    part.n_head = (uint32_t)iq_min_size(run->heads_per_unit, group - skipped);
    return part;
}

static void find_blocks(const iq_context *c, const attend_part *part, iq_thread_memory *memory) {
    const iq_kv_layer *layer = &c->kv.layers[c->run.op->layer];
    const uint32_t last = c->batch.pos[part->tile->first + part->tile->n - 1];
    const uint32_t *table = iq_kv_table(&c->kv, part->tile->seq);
    for (uint32_t i = 0; i <= last / IQ_KV_BLOCK; i++) {
        const size_t at = table[i] * layer->block_bytes + part->kv_head * layer->head_bytes;
        memory->blocks[i] = layer->k + at;
        memory->blocks[c->kv.n_block + i] = layer->v + at;
    }
}

/* Query rows stand token after token, the heads of a token next to each other. */
static void find_visible(const iq_context *c, const attend_part *part, iq_thread_memory *memory) {
    for (uint32_t i = 0; i < part->tile->n; i++) {
        const uint32_t n_visible = c->batch.pos[part->tile->first + i] + 1;
        for (uint32_t head = 0; head < part->n_head; head++) memory->n_visible[i * part->n_head + head] = n_visible;
    }
}

static void run_task(iq_context *c, const attend_part *part, const float *q, float *out, size_t stride,
                     uint32_t thread) {
    const iq_thread_memory *memory = &c->threads[thread];
    c->kernels->attention(&(iq_attention_task){
        .q = q,
        .n_q = (size_t)part->tile->n * part->n_head,
        .q_stride = stride,
        .head_dim = (size_t)c->run.op->head_dim,
        .n_visible = memory->n_visible,
        .k_blocks = memory->blocks,
        .v_blocks = memory->blocks + c->kv.n_block,
        .block_positions = IQ_KV_BLOCK,
        .kv_type = c->kv.type,
        .scale = c->run.op->f[0],
        .out = out,
        .out_stride = stride,
        .scratch = memory->scratch,
    });
}

/* Rows of several tokens and heads have no common stride in the buffers: they are gathered, and scattered back. */
static void attend_gathered(iq_context *c, const attend_part *part, const float *q, float *out, uint32_t thread) {
    const size_t head_dim = (size_t)c->run.op->head_dim, width = head_dim * part->n_head;
    const size_t n_cols = head_dim * (size_t)c->run.op->n_head;
    float *rows = c->threads[thread].temp, *results = rows + part->tile->n * width;
    for (uint32_t i = 0; i < part->tile->n; i++) memcpy(rows + i * width, q + i * n_cols, width * sizeof *q);
    run_task(c, part, rows, results, head_dim, thread);
    for (uint32_t i = 0; i < part->tile->n; i++) memcpy(out + i * n_cols, results + i * width, width * sizeof *q);
}

static void attend_unit(iq_context *c, uint32_t unit, uint32_t thread) {
    const iq_op *op = c->run.op;
    const attend_part part = part_of(c, unit);
    const uint32_t head_dim = (uint32_t)op->head_dim, first_col = part.first_head * head_dim;
    const float *q = iq_buffer_row(c, op->src[0], part.tile->first) + first_col;
    float *out = iq_buffer_row(c, op->dst[0], part.tile->first) + first_col;
    find_blocks(c, &part, &c->threads[thread]);
    find_visible(c, &part, &c->threads[thread]);
    if (part.tile->n > 1 && part.n_head > 1) {
        attend_gathered(c, &part, q, out, thread);
    } else {
        run_task(c, &part, q, out, part.tile->n == 1 ? head_dim : head_dim * (size_t)op->n_head, thread);
    }
    iq_companion_columns(c, c->run.stage, part.tile_index, part.tile->first, part.tile->n, first_col,
                         first_col + part.n_head * head_dim);
}

void iq_attend_chunk(iq_context *context, uint32_t chunk, uint32_t thread) {
    const iq_stage_run *run = &context->run;
    const uint32_t first = chunk * run->units_per_chunk;
    const uint32_t end = (uint32_t)iq_min_size((size_t)first + run->units_per_chunk, run->n_units);
    for (uint32_t unit = first; unit < end; unit++) attend_unit(context, unit, thread);
}
