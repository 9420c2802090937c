/* Attention: a task is one tile of tokens times the query heads (or a part of them) of one KV head.
 *
 * The positions that a task sees are summed up in ranges of IQ_ATTEND_RANGE, which are then merged in their order. A
 * step with fewer tasks than keep the threads busy deals out single ranges, and whoever finishes the last one of a task
 * merges them; else one thread computes a task's ranges one after the other. The arithmetic is the same, and so are the
 * bits. */
#include "engine/companion.h"
#include "engine/stage.h"

#define TASKS_PER_THREAD 8 /* with fewer, tasks are split into ranges */

typedef struct {
    const iq_tile *tile;
    uint32_t index, tile_index, kv_head, first_head, n_head, n_row, n_position;
} attend_task;

/* The sums of one range, for all rows of a task. */
typedef struct {
    float *sums;
    iq_attention_norm *norms;
} attend_sums;

IQ_INLINE uint32_t end_of(const iq_context *c, const iq_tile *tile) {
    return c->batch.pos[tile->first + tile->n - 1] + 1;
}

static uint32_t most_ranges(const iq_context *c) {
    uint32_t n_position = 0;
    for (uint32_t i = 0; i < c->batch.n_tiles; i++) {
        const uint32_t end = end_of(c, &c->batch.tiles[i]);
        if (end > n_position) n_position = end;
    }
    return iq_div_up(n_position, IQ_ATTEND_RANGE);
}

/* All query heads of a KV head in one task read its K and V once; with fewer units than threads they are divided. */
static void divide_heads(iq_stage_run *run, uint32_t n_parts, uint32_t n_threads) {
    const uint32_t n_head_kv = (uint32_t)run->op->n_head_kv, group = (uint32_t)run->op->n_head / n_head_kv;
    uint32_t parts = 1;
    while (n_parts * n_head_kv * parts < n_threads && parts * 2 <= group) parts *= 2;
    run->heads_per_unit = iq_div_up(group, parts);
    run->units_per_kv_head = iq_div_up(group, run->heads_per_unit);
}

uint32_t iq_attend_prepare(iq_context *context) {
    iq_stage_run *run = &context->run;
    const uint32_t n_tiles = context->batch.n_tiles, n_threads = context->params.n_threads;
    const bool few = context->batch.n_tokens <= IQ_SPLIT_TOKENS &&
                     n_tiles * (uint32_t)run->op->n_head_kv < TASKS_PER_THREAD * n_threads;
    run->n_ranges = few && n_threads > 1 ? most_ranges(context) : 1;
    divide_heads(run, n_tiles * run->n_ranges, n_threads);
    run->n_tasks = n_tiles * (uint32_t)run->op->n_head_kv * run->units_per_kv_head;
    run->n_units = run->n_tasks * run->n_ranges;
    run->units_per_chunk = iq_div_up(run->n_units, IQ_POOL_MAX_CHUNKS);
    return iq_div_up(run->n_units, run->units_per_chunk);
}

static attend_task task_of(const iq_context *c, uint32_t index) {
    const iq_stage_run *run = &c->run;
    const uint32_t n_tiles = c->batch.n_tiles, group = (uint32_t)(run->op->n_head / run->op->n_head_kv);
    attend_task task = {.index = index, .tile_index = index % n_tiles, .tile = &c->batch.tiles[index % n_tiles]};
    task.kv_head = index / n_tiles / run->units_per_kv_head;
    const uint32_t skipped = index / n_tiles % run->units_per_kv_head * run->heads_per_unit;
    task.first_head = task.kv_head * group + skipped;
    task.n_head = (uint32_t)iq_min_size(run->heads_per_unit, group - skipped);
    task.n_row = task.tile->n * task.n_head;
    task.n_position = end_of(c, task.tile);
    return task;
}

/* The place of a task's sums in the memory that threads share. Rows stand tile after tile, head after head. */
static attend_sums shared_sums(const iq_context *c, const attend_task *task, uint32_t range) {
    const size_t n_head = (size_t)c->run.op->n_head, first_head = task->first_head;
    const size_t row = range * c->split.n_row + task->tile->first * n_head + first_head * task->tile->n;
    return (attend_sums){c->split.sums + row * c->program->max_head_dim, c->split.norms + row};
}

/* ---- one range --------------------------------------------------------------------------------------------------- */

/* The query rows of a task: token after token, the heads of a token next to each other. */
typedef struct {
    const float *data;
    size_t stride;
} query_rows;

static query_rows find_queries(iq_context *c, const attend_task *task, uint32_t thread) {
    const iq_op *op = c->run.op;
    const size_t head_dim = (size_t)op->head_dim, stride = iq_buffer_stride(c->program, op->src[0]);
    const float *q = iq_buffer_row(c, op->src[0], task->tile->first) + task->first_head * head_dim;
    if (task->tile->n == 1) return (query_rows){q, head_dim};
    if (task->n_head == 1) return (query_rows){q, stride};
    float *rows = c->threads[thread].queries; /* no common stride */
    const size_t width = head_dim * task->n_head;
    for (uint32_t i = 0; i < task->tile->n; i++) memcpy(rows + i * width, q + i * stride, width * sizeof *q);
    return (query_rows){rows, head_dim};
}

static void find_blocks(const iq_context *c, const attend_task *task, uint32_t begin, uint32_t end,
                        const uint8_t **k_blocks, const uint8_t **v_blocks) {
    const iq_kv_layer *layer = &c->kv.layers[c->run.op->layer];
    const uint32_t *table = iq_kv_table(&c->kv, task->tile->seq), first = begin / IQ_KV_BLOCK;
    for (uint32_t i = first; i < iq_kv_blocks(end); i++) {
        k_blocks[i - first] = iq_kv_head(layer, IQ_KV_K, table[i], task->kv_head);
        v_blocks[i - first] = iq_kv_head(layer, IQ_KV_V, table[i], task->kv_head);
    }
}

/* The first row of a task that sees anything of a range. */
static uint32_t first_row(const iq_context *c, const attend_task *task, uint32_t range) {
    uint32_t token = 0;
    while (c->batch.pos[task->tile->first + token] < range * IQ_ATTEND_RANGE) token++;
    return token * task->n_head;
}

/* Sums up a range for the rows that see anything of it. */
static void attend_range(iq_context *c, const attend_task *task, uint32_t range, const query_rows *q, attend_sums sums,
                         uint32_t thread) {
    const uint8_t *k_blocks[IQ_ATTEND_RANGE / IQ_KV_BLOCK], *v_blocks[IQ_ATTEND_RANGE / IQ_KV_BLOCK];
    const uint32_t begin = range * IQ_ATTEND_RANGE, first = first_row(c, task, range);
    const uint32_t end = (uint32_t)iq_min_size(task->n_position, (size_t)begin + IQ_ATTEND_RANGE);
    uint32_t *n_visible = c->threads[thread].n_visible;
    for (uint32_t i = first; i < task->n_row; i++) {
        n_visible[i] = c->batch.pos[task->tile->first + i / task->n_head] + 1;
    }
    find_blocks(c, task, begin, end, k_blocks, v_blocks);
    const size_t head_dim = (size_t)c->run.op->head_dim;
    c->kernels->attention(&(iq_attention_task){
        .q = q->data + first * q->stride,
        .n_q = task->n_row - first,
        .q_stride = q->stride,
        .head_dim = head_dim,
        .n_visible = n_visible + first,
        .begin = begin,
        .end = end,
        .k_blocks = k_blocks,
        .v_blocks = v_blocks,
        .kv_type = c->kv.type,
        .scale = c->run.op->f[0],
        .out = sums.sums + first * head_dim,
        .norms = sums.norms + first,
        .scratch = c->threads[thread].scratch,
    });
}

static void merge(const iq_context *c, const attend_task *task, uint32_t range, attend_sums part, attend_sums total) {
    const size_t head_dim = (size_t)c->run.op->head_dim;
    for (size_t i = first_row(c, task, range); i < task->n_row; i++) {
        c->kernels->attention_merge(part.sums + i * head_dim, part.norms[i], head_dim, total.sums + i * head_dim,
                                    &total.norms[i]);
    }
}

/* ---- one task ---------------------------------------------------------------------------------------------------- */

static void finish(iq_context *c, const attend_task *task, attend_sums total) {
    const iq_op *op = c->run.op;
    const uint32_t head_dim = (uint32_t)op->head_dim, first_col = task->first_head * head_dim;
    for (uint32_t i = 0; i < task->n_row; i++) {
        float *out = iq_buffer_row(c, op->dst[0], task->tile->first + i / task->n_head) + first_col;
        c->kernels->attention_divide(total.sums + (size_t)i * head_dim, total.norms[i], head_dim,
                                     out + i % task->n_head * head_dim);
    }
    iq_companion_columns(c, c->run.stage, task->tile_index, task->tile->first, task->tile->n, first_col,
                         first_col + task->n_head * head_dim);
}

static void attend_whole(iq_context *c, const attend_task *task, uint32_t thread) {
    const iq_thread_memory *t = &c->threads[thread];
    const attend_sums total = {t->totals, t->total_norms}, part = {t->parts, t->part_norms};
    const query_rows q = find_queries(c, task, thread);
    attend_range(c, task, 0, &q, total, thread);
    for (uint32_t range = 1; range * IQ_ATTEND_RANGE < task->n_position; range++) {
        attend_range(c, task, range, &q, part, thread);
        merge(c, task, range, part, total);
    }
    finish(c, task, total);
}

static void attend_split(iq_context *c, const attend_task *task, uint32_t range, uint32_t thread) {
    const uint32_t n_ranges = iq_div_up(task->n_position, IQ_ATTEND_RANGE);
    if (range >= n_ranges) return; /* another sequence is longer */
    const query_rows q = find_queries(c, task, thread);
    attend_range(c, task, range, &q, shared_sums(c, task, range), thread);
    _Atomic uint32_t *n_done = &c->split.n_done[task->index];
    if (atomic_fetch_add_explicit(n_done, 1, memory_order_acq_rel) + 1 < n_ranges) return;
    atomic_store_explicit(n_done, 0, memory_order_relaxed);
    const attend_sums total = shared_sums(c, task, 0);
    for (uint32_t i = 1; i < n_ranges; i++) merge(c, task, i, shared_sums(c, task, i), total);
    finish(c, task, total);
}

void iq_attend_chunk(iq_context *context, uint32_t chunk, uint32_t thread) {
    const iq_stage_run *run = &context->run;
    const uint32_t first = chunk * run->units_per_chunk;
    const uint32_t end = (uint32_t)iq_min_size((size_t)first + run->units_per_chunk, run->n_units);
    for (uint32_t unit = first; unit < end; unit++) {
        const attend_task task = task_of(context, unit % run->n_tasks);
        if (run->n_ranges > 1) {
            attend_split(context, &task, unit / run->n_tasks, thread);
        } else {
            attend_whole(context, &task, thread);
        }
    }
}

void iq_attend_reset(iq_context *context) {
    for (size_t i = 0; i < context->split.n_task; i++) {
        atomic_store_explicit(&context->split.n_done[i], 0, memory_order_relaxed);
    }
}
