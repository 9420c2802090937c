/* Both products of attention with keys and values in float32 or float16.
 *
 *     scores[row][position] = sum over columns of  q[row][column] K[column][position]
 *     out[row][column]     += sum over positions of  weight[row][position] V[position][column]
 *
 * are one shape: rows of floats times vectors of the cache, which are widened on the way. Each sum runs over one index
 * in order, whatever rows share the work. */

/* Registers for sums: 16 of the 32 of AVX-512; elsewhere an f32x16 takes two or four. */
enum { FMA_ROWS = 4, FMA_VECTORS = MANY_REGISTERS ? 4 : 1 };

/* c[r][16 v ...] = sum_k a[r][k] * b[v][k][...], added to scale[r] * c if scale is given. */
typedef struct {
    const float *a;
    size_t a_stride, n_rows;
    const uint8_t *b;
    size_t b_vector, b_k; /* floats (or halves) from v to v + 1, from k to k + 1 */
    size_t n_k;
    float *c;
    size_t c_stride, c_cols; /* the last vector may be a part of one */
    const float *scale;
    const uint8_t *ahead; /* as in attention_rows */
} fma_task;

IQ_INLINE f32x16 kv_vector(const uint8_t *b, size_t i, const bool f16) {
    return f16 ? f32x16_load_f16(b + 2 * i) : f32x16_load((const float *)(const void *)b + i);
}

/* n_cols of the sums of one row and vector to where they belong. */
IQ_INLINE void fma_finish(const fma_task *t, f32x16 sum, size_t r, size_t v, size_t n_cols) {
    float *c = t->c + r * t->c_stride + 16 * v;
    if (t->scale) sum = f32x16_fma(load_up_to_16(c, n_cols), f32x16_set1(t->scale[r]), sum);
    store_up_to_16(c, sum, n_cols);
}

/* R rows, V vectors from row r, vector v on; F16, R and V are constants. */
IQ_INLINE void fma_tile(const fma_task *t, const bool F16, const size_t R, const size_t V, size_t r, size_t v,
                        size_t n_cols) {
    f32x16 sum[FMA_ROWS][FMA_VECTORS];
    for (size_t i = 0; i < R; i++) {
        for (size_t j = 0; j < V; j++) sum[i][j] = f32x16_zero();
    }
    const float *a = t->a + r * t->a_stride;
    const uint8_t *b = t->b + v * t->b_vector * (F16 ? 2 : 4);
    for (size_t k = 0; k < t->n_k; k++) {
        f32x16 x[FMA_VECTORS];
        if (FETCH_AHEAD && F16 && r == 0) PREFETCH(t->ahead + 32 * (v * t->n_k + k));
        for (size_t j = 0; j < V; j++) x[j] = kv_vector(b, j * t->b_vector + k * t->b_k, F16);
        for (size_t i = 0; i < R; i++) {
            const f32x16 y = f32x16_set1(a[i * t->a_stride + k]);
            for (size_t j = 0; j < V; j++) sum[i][j] = f32x16_fma(x[j], y, sum[i][j]);
        }
    }
    for (size_t i = 0; i < R; i++) {
        for (size_t j = 0; j < V; j++) fma_finish(t, sum[i][j], r + i, v + j, n_cols);
    }
}

IQ_INLINE void fma_rows(const fma_task *t, const bool F16, const size_t R, size_t r) {
    size_t v = 0;
    for (; 16 * (v + FMA_VECTORS) <= t->c_cols; v += FMA_VECTORS) fma_tile(t, F16, R, FMA_VECTORS, r, v, 16);
    for (; 16 * v < t->c_cols; v++) fma_tile(t, F16, R, 1, r, v, iq_min_size(16, t->c_cols - 16 * v));
}

IQ_INLINE void fma_all(const fma_task *t, const bool F16) {
    size_t r = 0;
    for (; r + FMA_ROWS <= t->n_rows; r += FMA_ROWS) fma_rows(t, F16, FMA_ROWS, r);
    switch (t->n_rows - r) {
    case 3: fma_rows(t, F16, 3, r); break;
    case 2: fma_rows(t, F16, 2, r); break;
    case 1: fma_rows(t, F16, 1, r); break;
    default: break;
    }
}

static void fma_f16(const fma_task *t) { fma_all(t, true); }
static void fma_f32(const fma_task *t) { fma_all(t, false); }

/* Halves are widened as often as there are groups of FMA_ROWS rows: with many rows once, beforehand. */
static void fma_any(const fma_task *t, int32_t kv_type, size_t n_values, float *widened) {
    if (kv_type == IQ_TYPE_F32) {
        fma_f32(t);
    } else if (t->n_rows <= 2 * FMA_ROWS) {
        fma_f16(t);
    } else {
        fma_task wide = *t;
        for (size_t i = 0; i < n_values; i += 16) f32x16_store(widened + i, f32x16_load_f16(t->b + 2 * i));
        wide.b = (const uint8_t *)widened;
        fma_f32(&wide);
    }
}

static void score_block_float(const attention_rows *rows, const uint8_t *k_block, size_t n) {
    const iq_attention_task *task = rows->task;
    fma_any(&(fma_task){.a = task->q + rows->first * task->q_stride,
                        .a_stride = task->q_stride,
                        .n_rows = rows->n,
                        .b = k_block,
                        .b_vector = 16,
                        .b_k = IQ_KV_BLOCK,
                        .n_k = task->head_dim,
                        .c = rows->scratch->scores[0],
                        .c_stride = IQ_KV_BLOCK,
                        .c_cols = iq_round_up(n, 16),
                        .ahead = rows->ahead},
            task->kv_type, IQ_KV_BLOCK * task->head_dim, rows->scratch->widened);
}

static void sum_block_float(const attention_rows *rows, const uint8_t *v_block, size_t n) {
    const iq_attention_task *task = rows->task;
    const size_t wide = iq_round_up(task->head_dim, 16);
    fma_any(&(fma_task){.a = rows->scratch->scores[0],
                        .a_stride = IQ_KV_BLOCK,
                        .n_rows = rows->n,
                        .b = v_block,
                        .b_vector = 16,
                        .b_k = wide,
                        .n_k = n,
                        .c = task->out + rows->first * task->head_dim,
                        .c_stride = task->head_dim,
                        .c_cols = task->head_dim,
                        .scale = rows->scratch->factor,
                        .ahead = rows->ahead},
            task->kv_type, n * wide, rows->scratch->widened);
}
