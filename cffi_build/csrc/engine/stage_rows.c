/* Stages that work on one row of a buffer at a time. */
#include <math.h>

#include "engine/companion.h"
#include "engine/stage.h"

#define CHUNK_BYTES 32768 /* some microseconds of work */

uint32_t iq_rows_prepare(iq_context *context) {
    iq_stage_run *run = &context->run;
    const int32_t buffer = run->stage->kind == IQ_STAGE_KV_STORE ? run->op->src[1] : run->stage->buffer;
    const size_t row_bytes = context->program->buffers[buffer].n_cols * sizeof(float);
    run->n_units = run->n_rows;
    run->units_per_chunk = row_bytes < CHUNK_BYTES ? (uint32_t)(CHUNK_BYTES / row_bytes) : 1;
    if (run->n_units / run->units_per_chunk >= IQ_POOL_MAX_CHUNKS) {
        run->units_per_chunk = iq_div_up(run->n_units, IQ_POOL_MAX_CHUNKS);
    }
    return iq_div_up(run->n_units, run->units_per_chunk);
}

static const uint8_t *embedding_of(iq_context *c, const iq_op *op, uint32_t token, uint32_t thread) {
    const iq_program_weight *w = &c->program->weights[op->weight[0]];
    if (!c->stream) return w->data + (size_t)token * w->row_bytes;
    return iq_stream_row(c->stream, op->weight[0], token, c->threads[thread].temp, IQ_TEMP_FLOATS * sizeof(float));
}

static void embed_row(iq_context *c, const iq_op *op, uint32_t row, uint32_t thread) {
    const iq_program_weight *w = &c->program->weights[op->weight[0]];
    const uint8_t *from = embedding_of(c, op, (uint32_t)c->batch.token[row], thread);
    if (!from) {
        iq_context_cancel(c);
        return;
    }
    float *out = iq_buffer_row(c, op->dst[0], row);
    w->decode(from, w->n_cols, out);
    if (op->f[0] == 1.0f) return;
    for (size_t i = 0; i < w->n_cols; i++) out[i] *= op->f[0];
}

static void select_row(iq_context *c, const iq_op *op, uint32_t row) {
    const float *x = iq_buffer_row(c, op->src[0], c->batch.output[row]);
    memcpy(iq_buffer_row(c, op->dst[0], row), x, c->program->buffers[op->dst[0]].n_cols * sizeof *x);
}

static void rms_norm_row(iq_context *c, const iq_op *op, uint32_t row) {
    const float *x = iq_buffer_row(c, op->src[0], row);
    const float *weight = op->weight[0] < 0 ? NULL : c->program->weights[op->weight[0]].vector;
    float *out = iq_buffer_row(c, op->dst[0], row);
    const size_t n_cols = c->program->buffers[op->dst[0]].n_cols, width = (size_t)op->head_dim;
    for (size_t i = 0; i < n_cols; i += width) c->kernels->rms_norm(x + i, weight, width, op->f[0], out + i);
}

static void rope_table_row(iq_context *c, const iq_op *op, uint32_t row) {
    const float *frequency = c->program->weights[op->weight[0]].vector, pos = (float)c->batch.pos[row];
    const size_t half = (size_t)op->n_rot / 2;
    float *out = iq_buffer_row(c, op->dst[0], row);
    for (size_t i = 0; i < half; i++) {
        const float angle = pos * frequency[i];
        out[i] = cosf(angle) * op->f[0];
        out[half + i] = sinf(angle) * op->f[0];
    }
}

static void rope_row(iq_context *c, const iq_op *op, uint32_t row) {
    const float *table = iq_buffer_row(c, op->src[0], row);
    float *x = iq_buffer_row(c, op->dst[0], row);
    const size_t n_cols = c->program->buffers[op->dst[0]].n_cols;
    const bool halves = (op->flags & IQ_FLAG_ROPE_HALVES) != 0;
    for (size_t i = 0; i < n_cols; i += (size_t)op->head_dim) c->kernels->rope(x + i, table, (size_t)op->n_rot, halves);
}

static void store_head(iq_context *c, const iq_kv_layer *layer, iq_kv_side side, const float *x, uint32_t pos,
                       uint8_t *head) {
    uint8_t row[IQ_MAX_HEAD_DIM * sizeof(float)];
    c->kernels->kv_store(x, layer->head_dim, c->kv.type, row);
    iq_kv_put_row(c->kv.type, side, layer->head_dim, row, pos % IQ_KV_BLOCK, head);
}

static void kv_store_row(iq_context *c, const iq_op *op, uint32_t row) {
    const iq_kv_layer *layer = &c->kv.layers[op->layer];
    const float *k = iq_buffer_row(c, op->src[1], row), *v = iq_buffer_row(c, op->src[2], row);
    const uint32_t pos = c->batch.pos[row], block = iq_kv_table(&c->kv, c->batch.seq[row])[pos / IQ_KV_BLOCK];
    for (size_t head = 0; head < layer->n_head_kv; head++) {
        store_head(c, layer, IQ_KV_K, k + head * layer->head_dim, pos, iq_kv_head(layer, IQ_KV_K, block, head));
        store_head(c, layer, IQ_KV_V, v + head * layer->head_dim, pos, iq_kv_head(layer, IQ_KV_V, block, head));
    }
}

static void add_row(iq_context *c, const iq_op *op, uint32_t row) {
    const size_t n_cols = c->program->buffers[op->dst[0]].n_cols;
    c->kernels->add(iq_buffer_row(c, op->src[0], row), n_cols, iq_buffer_row(c, op->dst[0], row));
}

static bool writes_companions(iq_stage_kind kind) {
    return kind == IQ_STAGE_RMS_NORM || kind == IQ_STAGE_DEAL || kind == IQ_STAGE_QUANTIZE;
}

void iq_rows_chunk(iq_context *context, uint32_t chunk, uint32_t thread) {
    const iq_stage_run *run = &context->run;
    const uint32_t first = chunk * run->units_per_chunk;
    const uint32_t n = (uint32_t)iq_min_size(run->units_per_chunk, run->n_units - first);
    for (uint32_t row = first; row < first + n; row++) {
        switch (run->stage->kind) {
        case IQ_STAGE_EMBED: embed_row(context, run->op, row, thread); break;
        case IQ_STAGE_SELECT: select_row(context, run->op, row); break;
        case IQ_STAGE_RMS_NORM: rms_norm_row(context, run->op, row); break;
        case IQ_STAGE_ROPE_TABLE: rope_table_row(context, run->op, row); break;
        case IQ_STAGE_ROPE: rope_row(context, run->op, row); break;
        case IQ_STAGE_KV_STORE: kv_store_row(context, run->op, row); break;
        case IQ_STAGE_ADD: add_row(context, run->op, row); break;
        case IQ_STAGE_DEAL: iq_deal_row(context, run->op, row); break;
        case IQ_STAGE_COLLECT: iq_collect_row(context, run->op, row); break;
        default: break; /* QUANTIZE: the companions below are all of it */
        }
    }
    if (writes_companions(run->stage->kind)) iq_companion_rows(context, run->stage, first, n);
}
