/* The float entries of every kernel table against the portable one, in allocations of exactly the size that is read or
 * written. What the numbers must be is tested in Python. Returns the number of faults; sanitizers report the rest. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernel/kernels.h"

enum { MAX_BLOCKS = 3 };

static uint64_t random_state = 1;

static float next_float(void) { /* splitmix64, to (-1, 1) */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (float)(int64_t)(z ^ z >> 31) * 0x1p-63f;
}

static void *allocate(size_t bytes) {
    void *p = malloc(bytes);
    if (!p) exit(2);
    return p;
}

static float *random_floats(size_t n, float size) {
    float *x = allocate(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = next_float() * size;
    return x;
}

static float *copy_floats(const float *x, size_t n) { return memcpy(allocate(n * sizeof *x), x, n * sizeof *x); }

/* Prints where a differs from b by more than `tolerance`, relative to the larger of |b| and 1. */
static int differs(const char *what, size_t n, const float *a, const float *b, float tolerance) {
    for (size_t i = 0; i < n; i++) {
        const float size = fabsf(b[i]) > 1.0f ? fabsf(b[i]) : 1.0f;
        if (fabsf(a[i] - b[i]) <= tolerance * size) continue;
        fprintf(stderr, "%s, length %zu: value %zu is %g instead of %g\n", what, n, i, (double)a[i], (double)b[i]);
        return 1;
    }
    return 0;
}

static int test_rows(const iq_kernels *k, const iq_kernels *portable, size_t n) {
    float *x = random_floats(n, 30.0f), *y = random_floats(n, 2.0f);
    float *got = copy_floats(x, n), *expected = copy_floats(x, n);
    k->rms_norm(x, y, n, 1e-5f, got);
    portable->rms_norm(x, y, n, 1e-5f, expected);
    int faults = differs("rms_norm", n, got, expected, 1e-5f);
    k->rms_norm(got, NULL, n, 1e-5f, got);
    portable->rms_norm(expected, NULL, n, 1e-5f, expected);
    faults += differs("rms_norm in place", n, got, expected, 1e-5f);
    k->silu_mul(x, y, n, got);
    portable->silu_mul(x, y, n, expected);
    faults += differs("silu_mul", n, got, expected, 1e-5f);
    k->add(y, n, got);
    portable->add(y, n, expected);
    faults += differs("add", n, got, expected, 1e-5f);
    free(x), free(y), free(got), free(expected);
    return faults;
}

static int test_rope(const iq_kernels *k, const iq_kernels *portable, size_t n_rot, bool halves) {
    float *table = random_floats(n_rot, 1.0f), *got = random_floats(n_rot, 3.0f), *expected = copy_floats(got, n_rot);
    k->rope(got, table, n_rot, halves);
    portable->rope(expected, table, n_rot, halves);
    const int faults = differs(halves ? "rope halves" : "rope pairs", n_rot, got, expected, 1e-5f);
    free(table), free(got), free(expected);
    return faults;
}

static int test_kv_store(const iq_kernels *k, const iq_kernels *portable, size_t n, int32_t type) {
    const size_t bytes = iq_kv_row_bytes(type, n);
    float *x = random_floats(n, 70000.0f);
    uint8_t *got = allocate(bytes), *expected = allocate(bytes);
    k->kv_store(x, n, type, got);
    portable->kv_store(x, n, type, expected);
    const int fault = memcmp(got, expected, bytes) != 0;
    if (fault) fprintf(stderr, "kv_store of %zu values of type %d differs\n", n, type);
    free(x), free(got), free(expected);
    return fault;
}

/* A row comes out of a block as it went in, whatever stands beside it. */
static int test_rows_of_a_block(const iq_kernels *k, size_t n, int32_t type, iq_kv_side side) {
    const size_t bytes = iq_kv_row_bytes(type, n);
    uint8_t *head = allocate(iq_kv_head_bytes(type, side, n)), *got = allocate(bytes);
    uint8_t *rows = allocate(IQ_KV_BLOCK * bytes);
    int faults = 0;
    for (size_t i = 0; i < IQ_KV_BLOCK; i++) {
        float *x = random_floats(n, 2.0f);
        k->kv_store(x, n, type, rows + i * bytes);
        iq_kv_put_row(type, side, n, rows + i * bytes, i, head);
        free(x);
    }
    for (size_t i = 0; i < IQ_KV_BLOCK; i++) {
        iq_kv_get_row(type, side, n, head, i, got);
        faults += memcmp(got, rows + i * bytes, bytes) != 0;
    }
    if (faults) fprintf(stderr, "%d rows of %zu values of type %d are not what was put there\n", faults, n, type);
    free(head), free(rows), free(got);
    return faults;
}

typedef struct {
    size_t n_q, head_dim, n_positions;
    int32_t type;
} shape;

/* Blocks of random rows; what is behind the last one is as bad as it can be. */
static void fill_cache(const iq_kernels *k, const shape *s, iq_kv_side side, uint8_t *blocks[MAX_BLOCKS]) {
    uint8_t row[512 * sizeof(float)];
    for (size_t i = 0; i < s->n_positions; i++) {
        uint8_t **block = &blocks[i / IQ_KV_BLOCK];
        const size_t bytes = iq_kv_head_bytes(s->type, side, s->head_dim);
        if (!*block) *block = memset(allocate(bytes), 0xff, bytes);
        float *x = random_floats(s->head_dim, 2.0f);
        k->kv_store(x, s->head_dim, s->type, row);
        iq_kv_put_row(s->type, side, s->head_dim, row, i % IQ_KV_BLOCK, *block);
        free(x);
    }
}

/* In one range, then merged from one and the rest. */
static void attend(const iq_kernels *k, iq_attention_task *task, size_t n_positions, float *whole, float *merged) {
    const size_t n = task->n_q * task->head_dim, width = task->head_dim;
    float *part = allocate(n * sizeof *part);
    iq_attention_norm *norms = allocate(2 * task->n_q * sizeof *norms), *part_norms = norms + task->n_q;
    const uint8_t *const *k_blocks = task->k_blocks, *const *v_blocks = task->v_blocks;
    task->begin = 0, task->end = n_positions, task->out = whole, task->norms = norms;
    k->attention(task);
    for (size_t i = 0; i < task->n_q; i++) k->attention_divide(whole + i * width, norms[i], width, whole + i * width);
    task->end = iq_min_size(IQ_KV_BLOCK, n_positions), task->out = merged;
    k->attention(task);
    if (n_positions > IQ_KV_BLOCK) {
        task->begin = IQ_KV_BLOCK, task->end = n_positions, task->out = part, task->norms = part_norms;
        task->k_blocks = k_blocks + 1, task->v_blocks = v_blocks + 1;
        k->attention(task);
    }
    for (size_t i = 0; i < task->n_q; i++) {
        float *row = merged + i * width;
        const bool more = task->n_visible[i] > IQ_KV_BLOCK;
        if (more) k->attention_merge(part + i * width, part_norms[i], width, row, &norms[i]);
        k->attention_divide(row, norms[i], width, row);
    }
    task->k_blocks = k_blocks, task->v_blocks = v_blocks;
    free(part), free(norms);
}

static int test_attention(const iq_kernels *k, const iq_kernels *portable, const shape *s, void *scratch) {
    uint8_t *k_blocks[MAX_BLOCKS] = {0}, *v_blocks[MAX_BLOCKS] = {0};
    uint32_t *n_visible = allocate(s->n_q * sizeof *n_visible);
    const size_t n = s->n_q * s->head_dim;
    float *q = random_floats(n, 2.0f), *got = random_floats(n, 1.0f), *expected = random_floats(n, 1.0f);
    float *merged = random_floats(n, 1.0f), *unused = random_floats(n, 1.0f);
    fill_cache(portable, s, IQ_KV_K, k_blocks);
    fill_cache(portable, s, IQ_KV_V, v_blocks);
    for (size_t i = 0; i < s->n_q; i++) n_visible[i] = (uint32_t)(s->n_positions - i % s->n_positions);
    iq_attention_task task = {.q = q, .n_q = s->n_q, .q_stride = s->head_dim, .head_dim = s->head_dim};
    task.n_visible = n_visible, task.kv_type = s->type, task.scale = 0.2f, task.scratch = scratch;
    task.k_blocks = (const uint8_t *const *)k_blocks, task.v_blocks = (const uint8_t *const *)v_blocks;
    attend(k, &task, s->n_positions, got, merged);
    attend(portable, &task, s->n_positions, expected, unused);
    /* q8_0: a weight that rounds to the other int16 moves a sum by 2^-15 of the largest term */
    const float tolerance = s->type == IQ_TYPE_Q8_0 ? 2e-4f : 2e-5f;
    int faults = differs("attention", n, got, expected, tolerance);
    faults += differs("attention in two ranges", n, merged, expected, tolerance);
    for (int i = 0; i < MAX_BLOCKS; i++) free(k_blocks[i]), free(v_blocks[i]);
    free(n_visible), free(q), free(got), free(expected), free(merged), free(unused);
    return faults;
}

static int test_attentions(const iq_kernels *k, const iq_kernels *portable) {
    static const size_t dims[] = {8, 16, 24, 64, 72, 80, 96, 128, 512}, positions[] = {1, 15, 16, 17, 64, 65, 150};
    static const size_t n_q[] = {1, 2, 3, 4, 7, 16, 70};
    void *scratch = aligned_alloc(64, IQ_SCRATCH_BYTES);
    int faults = 0;
    for (size_t i = 0; i < 9 * 7 * 7; i++) {
        const shape s = {n_q[i / 63], dims[i % 9], positions[i / 9 % 7], IQ_TYPE_Q8_0};
        faults += test_attention(k, portable, &s, scratch);
        const shape t = {n_q[i / 63], dims[i % 9], positions[i / 9 % 7], i / 9 % 2 ? IQ_TYPE_F16 : IQ_TYPE_F32};
        faults += test_attention(k, portable, &t, scratch);
    }
    free(scratch);
    return faults;
}

static int test_kv_type(const iq_kernels *k, const iq_kernels *portable, int32_t type) {
    int faults = 0;
    for (size_t n = 8; n <= 128; n += 8) {
        faults += test_kv_store(k, portable, n, type);
        faults += test_rows_of_a_block(k, n, type, IQ_KV_K) + test_rows_of_a_block(k, n, type, IQ_KV_V);
    }
    return faults;
}

static int test_table(const iq_kernels *k, const iq_kernels *portable) {
    int faults = 0;
    for (size_t n = 1; n < 70; n++) faults += test_rows(k, portable, n);
    faults += test_rows(k, portable, 1000);
    for (size_t n = 2; n <= 128; n += 2) faults += test_rope(k, portable, n, false) + test_rope(k, portable, n, true);
    faults += test_kv_type(k, portable, IQ_TYPE_F32) + test_kv_type(k, portable, IQ_TYPE_F16);
    faults += test_kv_type(k, portable, IQ_TYPE_Q8_0);
    return faults + test_attentions(k, portable);
}

int main(void) {
    const iq_kernels *portable = NULL, *kernels = NULL;
    int faults = iq_kernels_find("portable", &portable, NULL) != IQ_OK;
    for (size_t i = 0; iq_isa_at(i) && faults == 0; i++) {
        if (!iq_isa_runs_here(iq_isa_at(i))) continue;
        faults += iq_kernels_find(iq_isa_at(i), &kernels, NULL) != IQ_OK || test_table(kernels, portable);
        printf("float kernels of %s: %s\n", iq_isa_at(i), faults ? "different" : "as portable");
    }
    return faults;
}
