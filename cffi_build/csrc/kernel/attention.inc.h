/* Attention over a paged KV cache, block by block with an online softmax: no memory grows with the context.
 *
 * For each KV block of up to 64 positions:
 *     K rows are decoded and transposed into scratch: [16 positions][head_dim][16], a vector holds 16 positions
 *     S[row][position] = q . k                               (fma_tile over head_dim)
 *     P = exp(S - running maximum); old sums are scaled down when the maximum grows
 *     V rows are decoded into the same scratch: [16 columns][position][16], a vector holds 16 columns
 *     out[row] += P V                                        (fma_tile over positions)
 * K and V are decoded once for all query rows of the task. Every sum runs over one index in order, whatever rows share
 * the task: a row's result depends on nothing but the row.
 */

#define ATTN_POSITIONS 64 /* most positions per KV block */
#define ATTN_ROWS 64      /* query rows that share one decoding of K and V */
#define ATTN_MAX_DIM 512

/* Registers for accumulators: 16 of the 32 of AVX-512, 8 (two or four per f32x16) elsewhere. */
enum { FMA_ROWS = TILE_TOKENS >= 8 ? 4 : 2, FMA_VECTORS = FMA_ROWS };

typedef struct {
    float rows[ATTN_POSITIONS * ATTN_MAX_DIM]; /* K, then V, of one block */
    float scores[ATTN_ROWS][ATTN_POSITIONS];
    float maximum[ATTN_ROWS], sum[ATTN_ROWS];
} attention_scratch;

_Static_assert(sizeof(attention_scratch) + 64 <= IQ_SCRATCH_BYTES, "one block of K or V and its scores");

/* ---- rows of the cache ---------------------------------------------------------------------------------------- */

/* A value beyond float16 becomes the largest one: an infinity in V would turn masked weights (0) into NaN. */
IQ_INLINE f32x16 within_f16(f32x16 x) {
    return f32x16_min(f32x16_set1(65504.0f), f32x16_max(f32x16_set1(-65504.0f), x));
}

/* n values of a KV row; n is a multiple of 8. */
static void kv_store(const float *x, size_t n, int32_t kv_type, void *out) {
    if (kv_type == IQ_TYPE_F32) {
        memcpy(out, x, n * sizeof *x);
        return;
    }
    size_t i = 0;
    for (; i + 16 <= n; i += 16) f32x16_store_f16((uint8_t *)out + 2 * i, within_f16(f32x16_load(x + i)));
    if (i == n) return;
    uint8_t tail[32];
    f32x16_store_f16(tail, within_f16(f32x16_load_n(x + i, n - i)));
    memcpy((uint8_t *)out + 2 * i, tail, 2 * (n - i));
}

/* Columns [i, i + 16) of a row of n; zeros past the end. */
IQ_INLINE f32x16 kv_load(const uint8_t *row, size_t i, size_t n, int32_t kv_type) {
    const size_t left = n - i;
    if (kv_type == IQ_TYPE_F32) {
        const float *x = (const float *)(const void *)row + i;
        return left < 16 ? f32x16_load_n(x, left) : f32x16_load(x);
    }
    if (left >= 16) return f32x16_load_f16(row + 2 * i);
    uint8_t tail[32] = {0};
    memcpy(tail, row + 2 * i, 2 * left);
    return f32x16_load_f16(tail);
}

IQ_INLINE void load_k_as(const uint8_t *rows, size_t row_bytes, size_t n, size_t head_dim, int32_t kv_type,
                         float *out) {
    const size_t wide = iq_round_up(head_dim, 16);
    for (size_t p = 0; p < n; p += 16) {
        for (size_t i = 0; i < head_dim; i += 16) {
            f32x16 tile[16];
            for (size_t k = 0; k < 16; k++) {
                tile[k] = p + k < n ? kv_load(rows + (p + k) * row_bytes, i, head_dim, kv_type) : f32x16_zero();
            }
            tile_store_f32(out + p * wide + i * 16, tile);
        }
    }
}

IQ_INLINE void load_v_as(const uint8_t *rows, size_t row_bytes, size_t n, size_t head_dim, int32_t kv_type,
                         float *out) {
    for (size_t i = 0; i < head_dim; i += 16) {
        for (size_t p = 0; p < n; p++) {
            f32x16_store(out + (i * n + p * 16), kv_load(rows + p * row_bytes, i, head_dim, kv_type));
        }
    }
}

static void load_k(const uint8_t *rows, size_t n, size_t head_dim, int32_t kv_type, float *out) {
    if (kv_type == IQ_TYPE_F32) {
        load_k_as(rows, 4 * head_dim, n, head_dim, IQ_TYPE_F32, out);
    } else {
        load_k_as(rows, 2 * head_dim, n, head_dim, IQ_TYPE_F16, out);
    }
}

static void load_v(const uint8_t *rows, size_t n, size_t head_dim, int32_t kv_type, float *out) {
    if (kv_type == IQ_TYPE_F32) {
        load_v_as(rows, 4 * head_dim, n, head_dim, IQ_TYPE_F32, out);
    } else {
        load_v_as(rows, 2 * head_dim, n, head_dim, IQ_TYPE_F16, out);
    }
}

/* ---- the inner product of both halves ---------------------------------------------------------------------------- */

/* c[r][16 v ...] = sum_k a[r][k] * b[v][k][...], added to scale[r] * c if scale is given. */
typedef struct {
    const float *a;
    size_t a_stride, n_rows;
    const float *b; /* [n_vectors][at least n_k][16] */
    size_t b_stride, n_vectors, n_k;
    float *c;
    size_t c_stride, c_cols;
    const float *scale;
} fma_task;

/* R rows, V vectors from row r, vector v on; R and V are constants. */
IQ_INLINE void fma_tile(const fma_task *t, const size_t R, const size_t V, size_t r, size_t v) {
    f32x16 sum[FMA_ROWS][FMA_VECTORS];
    for (size_t i = 0; i < R; i++) {
        for (size_t j = 0; j < V; j++) {
            const float *c = t->c + (r + i) * t->c_stride + 16 * (v + j);
            const size_t left = t->c_cols - 16 * (v + j);
            sum[i][j] = f32x16_zero();
            if (t->scale) sum[i][j] = f32x16_mul(f32x16_load_n(c, left < 16 ? left : 16), f32x16_set1(t->scale[r + i]));
        }
    }
    const float *a = t->a + r * t->a_stride, *b = t->b + v * t->b_stride;
    for (size_t k = 0; k < t->n_k; k++) {
        f32x16 x[FMA_VECTORS];
        for (size_t j = 0; j < V; j++) x[j] = f32x16_load(b + j * t->b_stride + k * 16);
        for (size_t i = 0; i < R; i++) {
            const f32x16 y = f32x16_set1(a[i * t->a_stride + k]);
            for (size_t j = 0; j < V; j++) sum[i][j] = f32x16_fma(x[j], y, sum[i][j]);
        }
    }
    for (size_t i = 0; i < R; i++) {
        for (size_t j = 0; j < V; j++) {
            const size_t left = t->c_cols - 16 * (v + j);
            f32x16_store_n(t->c + (r + i) * t->c_stride + 16 * (v + j), sum[i][j], left < 16 ? left : 16);
        }
    }
}

IQ_INLINE void fma_rows(const fma_task *t, const size_t R, size_t r) {
    size_t v = 0;
    for (; v + FMA_VECTORS <= t->n_vectors; v += FMA_VECTORS) fma_tile(t, R, FMA_VECTORS, r, v);
    for (; v < t->n_vectors; v++) fma_tile(t, R, 1, r, v);
}

static void fma_all(const fma_task *t) {
    size_t r = 0;
    for (; r + FMA_ROWS <= t->n_rows; r += FMA_ROWS) fma_rows(t, FMA_ROWS, r);
    for (; r < t->n_rows; r++) fma_rows(t, 1, r);
}

/* ---- softmax ------------------------------------------------------------------------------------------------------ */

static const float lane_numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* Scores to weights exp(scale * s - maximum), in place; positions from n_visible on get 0. Updates the row's maximum and
 * sum and returns the factor of what was summed before. */
static float soften_row(float *scores, size_t n, size_t n_visible, float scale, float *maximum, float *sum) {
    const f32x16 lowest = f32x16_set1(-INFINITY), end = f32x16_set1((float)n_visible), lane = f32x16_load(lane_numbers);
    f32x16 most = lowest;
    for (size_t i = 0; i < n; i += 16) {
        const f32x16 s = f32x16_mul(f32x16_load(scores + i), f32x16_set1(scale));
        const f32x16 visible = f32x16_select_gt(end, f32x16_add(lane, f32x16_set1((float)i)), s, lowest);
        f32x16_store(scores + i, visible);
        most = f32x16_max(most, visible);
    }
    const float before = *maximum, block = f32x16_reduce_max(most), now = block > before ? block : before;
    f32x16 total = f32x16_zero();
    for (size_t i = 0; i < n; i += 16) {
        const f32x16 p = f32x16_exp(f32x16_sub(f32x16_load(scores + i), f32x16_set1(now)));
        f32x16_store(scores + i, p);
        total = f32x16_add(total, p);
    }
    const float factor = before == now ? 1.0f : expf(before - now);
    *maximum = now;
    *sum = *sum * factor + f32x16_reduce_add(total);
    return factor;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------- */

/* Query rows [first, first + n) of the task. */
typedef struct {
    const iq_attention_task *task;
    size_t first, n;
    attention_scratch *scratch;
} attention_rows;

/* The padding of K^T up to a multiple of 16 columns is left out of the sum over head_dim. */
static void score_block(const attention_rows *rows, size_t n_positions) {
    const iq_attention_task *task = rows->task;
    fma_all(&(fma_task){
        .a = task->q + rows->first * task->q_stride,
        .a_stride = task->q_stride,
        .n_rows = rows->n,
        .b = rows->scratch->rows,
        .b_stride = 16 * iq_round_up(task->head_dim, 16),
        .n_vectors = (n_positions + 15) / 16,
        .n_k = task->head_dim,
        .c = rows->scratch->scores[0],
        .c_stride = ATTN_POSITIONS,
        .c_cols = ATTN_POSITIONS,
    });
}

static void sum_block(const attention_rows *rows, size_t n_positions, const float *factor) {
    const iq_attention_task *task = rows->task;
    fma_all(&(fma_task){
        .a = rows->scratch->scores[0],
        .a_stride = ATTN_POSITIONS,
        .n_rows = rows->n,
        .b = rows->scratch->rows,
        .b_stride = 16 * n_positions,
        .n_vectors = (task->head_dim + 15) / 16,
        .n_k = n_positions,
        .c = task->out + rows->first * task->out_stride,
        .c_stride = task->out_stride,
        .c_cols = task->head_dim,
        .scale = factor,
    });
}

static void attend_block(const attention_rows *rows, size_t block, size_t n_positions) {
    const iq_attention_task *task = rows->task;
    attention_scratch *s = rows->scratch;
    const size_t before = block * task->block_positions, n_scores = iq_round_up(n_positions, 16);
    float factor[ATTN_ROWS];
    load_k(task->k_blocks[block], n_positions, task->head_dim, task->kv_type, s->rows);
    score_block(rows, n_positions);
    for (size_t i = 0; i < rows->n; i++) {
        const size_t end = task->n_visible[rows->first + i], n_visible = end > before ? end - before : 0;
        factor[i] = soften_row(s->scores[i], n_scores, n_visible, task->scale, &s->maximum[i], &s->sum[i]);
    }
    load_v(task->v_blocks[block], n_positions, task->head_dim, task->kv_type, s->rows);
    sum_block(rows, n_positions, factor);
}

static void divide_by_sums(const attention_rows *rows) {
    const iq_attention_task *task = rows->task;
    for (size_t i = 0; i < rows->n; i++) {
        float *out = task->out + (rows->first + i) * task->out_stride;
        const f32x16 scale = f32x16_set1(1.0f / rows->scratch->sum[i]);
        for (size_t k = 0; k < task->head_dim; k += 16) {
            const size_t n = iq_min_size(16, task->head_dim - k);
            f32x16_store_n(out + k, f32x16_mul(f32x16_load_n(out + k, n), scale), n);
        }
    }
}

static void attend_rows(const attention_rows *rows) {
    const iq_attention_task *task = rows->task;
    size_t end = 0;
    for (size_t i = 0; i < rows->n; i++) {
        const size_t n_visible = task->n_visible[rows->first + i];
        if (n_visible > end) end = n_visible;
        rows->scratch->maximum[i] = -INFINITY;
        rows->scratch->sum[i] = 0;
        memset(task->out + (rows->first + i) * task->out_stride, 0, task->head_dim * sizeof(float));
    }
    for (size_t first = 0; first < end; first += task->block_positions) {
        attend_block(rows, first / task->block_positions, iq_min_size(task->block_positions, end - first));
    }
    divide_by_sums(rows);
}

static void attention(const iq_attention_task *task) {
    for (size_t first = 0; first < task->n_q; first += ATTN_ROWS) {
        attend_rows(&(attention_rows){task, first, iq_min_size(ATTN_ROWS, task->n_q - first), task->scratch});
    }
}
