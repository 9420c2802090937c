/* A small model of random weights, and batches for it: what the C tests of the engine run. */
#ifndef SMALL_MODEL_H
#define SMALL_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "iqrun.h"

enum { N_EMBD = 64, HEAD_DIM = 16, N_HEAD = 4, N_HEAD_KV = 2, N_KV = N_HEAD_KV * HEAD_DIM, N_FF = 96, N_VOCAB = 40 };
enum { N_LAYER = 2, N_STEP = 40, MAX_TOKENS = 24, KV_BLOCK = 64, TYPE_F32 = 0 };
enum { X, NORMED, Q, K, V, ATTENDED, GATED, TABLE, CHOSEN, LOGITS, N_BUFFER };

typedef struct {
    iq_op ops[64];
    iq_weight weights[64];
    iq_buffer buffers[N_BUFFER];
    float values[200000];
    size_t n_value;
    uint32_t n_op, n_weight;
    uint64_t random;
} model;

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int32_t add_weight(model *m, uint64_t n_rows, uint64_t n_cols) {
    float *values = m->values + m->n_value;
    for (uint64_t i = 0; i < n_rows * n_cols; i++) values[i] = (float)(next_random(&m->random) >> 40) * 0x1p-26f - 0.1f;
    m->n_value += n_rows * n_cols;
    m->weights[m->n_weight] = (iq_weight){values, TYPE_F32, n_rows, n_cols, 0};
    return (int32_t)m->n_weight++;
}

static iq_op *add_op(model *m, iq_op_kind kind, int32_t dst, int32_t src) {
    iq_op *op = &m->ops[m->n_op++];
    *op = (iq_op){.kind = (int32_t)kind,
                  .layer = -1,
                  .head_dim = HEAD_DIM,
                  .n_rot = HEAD_DIM,
                  .n_head = N_HEAD,
                  .n_head_kv = N_HEAD_KV,
                  .f = {1e-5f, 0, 0, 0}};
    for (int i = 0; i < IQ_OP_SLOTS; i++) op->dst[i] = op->src[i] = op->weight[i] = op->bias[i] = -1;
    op->dst[0] = dst;
    op->src[0] = src;
    return op;
}

static void add_norm(model *m, int32_t dst, int32_t src) {
    iq_op *op = add_op(m, IQ_OP_RMS_NORM, dst, src);
    op->head_dim = N_EMBD;
    op->weight[0] = add_weight(m, 1, N_EMBD);
}

static iq_op *add_matmul(model *m, int32_t dst, int32_t src) {
    iq_op *op = add_op(m, IQ_OP_MATMUL, dst, src);
    op->n = 1;
    op->weight[0] = add_weight(m, m->buffers[dst].n_cols, m->buffers[src].n_cols);
    return op;
}

static void add_layer(model *m, int32_t layer) {
    add_norm(m, NORMED, X);
    iq_op *qkv = add_matmul(m, Q, NORMED);
    qkv->n = 3;
    for (int i = 1; i < 3; i++) qkv->dst[i] = Q + i, qkv->weight[i] = add_weight(m, N_KV, N_EMBD);
    add_op(m, IQ_OP_ROPE, Q, TABLE);
    add_op(m, IQ_OP_ROPE, K, TABLE);
    iq_op *attention = add_op(m, IQ_OP_ATTENTION, ATTENDED, Q);
    attention->src[1] = K, attention->src[2] = V, attention->layer = layer, attention->f[0] = 0.25f;
    add_matmul(m, X, ATTENDED)->flags = IQ_FLAG_ADD;
    add_norm(m, NORMED, X);
    iq_op *gated = add_op(m, IQ_OP_GATED_MATMUL, GATED, NORMED);
    gated->n = 2;
    for (int i = 0; i < 2; i++) gated->weight[i] = add_weight(m, N_FF, N_EMBD);
    add_matmul(m, X, GATED)->flags = IQ_FLAG_ADD;
}

static void build_model(model *m) {
    static const uint32_t n_cols[N_BUFFER] = {N_EMBD, N_EMBD, N_EMBD,   N_KV,   N_KV,
                                              N_EMBD, N_FF,   HEAD_DIM, N_EMBD, N_VOCAB};
    memset(m, 0, sizeof *m);
    for (int i = 0; i < N_BUFFER; i++) {
        m->buffers[i] = (iq_buffer){n_cols[i], i == CHOSEN || i == LOGITS ? IQ_ROWS_OUTPUTS : IQ_ROWS_TOKENS, 0};
    }
    iq_op *embed = add_op(m, IQ_OP_EMBED, X, -1);
    embed->weight[0] = add_weight(m, N_VOCAB, N_EMBD), embed->f[0] = 1.0f;
    iq_op *table = add_op(m, IQ_OP_ROPE_TABLE, TABLE, -1);
    table->weight[0] = add_weight(m, 1, HEAD_DIM / 2), table->f[0] = 1.0f;
    for (int32_t i = 0; i < N_LAYER; i++) add_layer(m, i);
    add_op(m, IQ_OP_SELECT, CHOSEN, X);
    add_matmul(m, LOGITS, CHOSEN);
}

static iq_program *create_program(const model *m, iq_error *error) {
    const iq_kernels *kernels = NULL;
    iq_program *program = NULL;
    const iq_program_spec spec = {m->ops,      m->buffers, m->weights, m->n_op, N_BUFFER,
                                  m->n_weight, N_LAYER,    N_VOCAB,    LOGITS};
    if (iq_kernels_find(getenv("IQRUN_ISA"), &kernels, error) == IQ_OK)
        iq_program_create(&spec, kernels, &program, error);
    return program;
}

/* The n-th batch of a history that depends on nothing but n: one to MAX_TOKENS tokens of two sequences. */
static iq_batch make_batch(uint32_t n, int32_t *token, int32_t *seq) {
    uint64_t state = n;
    iq_batch batch = {.n_tokens = n % 3 == 0 ? 1 : 1 + (uint32_t)(next_random(&state) % MAX_TOKENS),
                      .token = token,
                      .seq = seq,
                      .way = (int32_t)(n / 3 % 3)};
    for (uint32_t i = 0; i < batch.n_tokens; i++) {
        token[i] = (int32_t)(next_random(&state) % N_VOCAB);
        seq[i] = (int32_t)(next_random(&state) % 2);
    }
    return batch;
}

#endif
