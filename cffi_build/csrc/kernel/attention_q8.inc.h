/* Both products of attention with keys and values in q8_0, in integers.
 *
 * Scores: the query becomes int8 with a scale per 32 columns, as activations do for a matmul.
 *     score[row][position] = sum over 32-blocks b of  dq[row][b] d[position][b] (sum of q k)
 * Values: a position's weight times its scale becomes int16 with a scale per block of positions, which keeps 2^-16 of
 * the largest one: far finer than the values themselves.
 *     out[row][column] += dw[row] (sum over positions of w v)
 * Integer sums are exact, and each belongs to one row: a row's result does not depend on what shares the work. */

enum { Q8_ROWS = 4, Q8_VECTORS = TILE_TOKENS >= 8 ? 2 : 1 };

IQ_INLINE size_t q8_units(const attention_rows *rows) {
    return (rows->task->head_dim + IQ_KV_COLUMNS - 1) / IQ_KV_COLUMNS;
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

static void quantize_queries(const attention_rows *rows) {
    const size_t head_dim = rows->task->head_dim;
    for (size_t r = 0; r < rows->n; r++) {
        const float *x = rows->task->q + (rows->first + r) * rows->task->q_stride;
        for (size_t b = 0; b < q8_units(rows); b++) {
            const size_t left = head_dim - 32 * b;
            q8_query *q = &rows->scratch->queries[r][b];
            const f32x16 low = load_up_to_16(x + 32 * b, left);
            q->d = quantize_block(low, load_up_to_16(x + 32 * b + 16, left < 16 ? 0 : left - 16), q->q);
            q->bias = 0;
            if (KV_BIAS == 0) continue;
            for (int i = 0; i < 32; i++) q->bias -= KV_BIAS * q->q[i];
        }
    }
}

/* R rows, V vectors of 16 positions from row r, vector v on; R and V are constants. */
IQ_INLINE void q8_score_tile(const attention_rows *rows, const uint8_t *k_block, const size_t R, const size_t V,
                             size_t r, size_t v) {
    const size_t n_unit = q8_units(rows);
    f32x16 score[Q8_ROWS][Q8_VECTORS];
    for (size_t i = 0; i < R; i++) {
        for (size_t j = 0; j < V; j++) score[i][j] = f32x16_zero();
    }
    for (size_t b = 0; b < n_unit; b++) {
        const uint8_t *unit = k_block + b * IQ_KV_UNIT, *codes = unit + IQ_KV_CODES + 64 * v;
        i32x16 sum[Q8_ROWS][Q8_VECTORS];
        for (size_t i = 0; i < R; i++) {
            for (size_t j = 0; j < V; j++) sum[i][j] = i32x16_set1(rows->scratch->queries[r + i][b].bias);
        }
        for (size_t c = 0; c < 8; c++) {
            kv_codes k[Q8_VECTORS];
            for (size_t j = 0; j < V; j++) k[j] = kv_load_k(codes + 4 * IQ_KV_BLOCK * c + 64 * j);
            for (size_t i = 0; i < R; i++) {
                const int8_t *q = rows->scratch->queries[r + i][b].q + 4 * c;
                for (size_t j = 0; j < V; j++) sum[i][j] = kv_dot4(sum[i][j], k[j], q);
            }
        }
        for (size_t j = 0; j < V; j++) {
            const f32x16 d = f32x16_load_f16(unit + 32 * (v + j));
            for (size_t i = 0; i < R; i++) {
                const f32x16 scale = f32x16_mul(d, f32x16_set1(rows->scratch->queries[r + i][b].d));
                score[i][j] = f32x16_fma(scale, i32x16_f32(sum[i][j]), score[i][j]);
            }
        }
    }
    for (size_t i = 0; i < R; i++) {
        for (size_t j = 0; j < V; j++) f32x16_store(rows->scratch->scores[r + i] + 16 * (v + j), score[i][j]);
    }
}

IQ_INLINE void q8_score_rows(const attention_rows *rows, const uint8_t *k_block, size_t n_vectors, const size_t R,
                             size_t r) {
    size_t v = 0;
    for (; v + Q8_VECTORS <= n_vectors; v += Q8_VECTORS) q8_score_tile(rows, k_block, R, Q8_VECTORS, r, v);
    for (; v < n_vectors; v++) q8_score_tile(rows, k_block, R, 1, r, v);
}

static void score_block_q8(const attention_rows *rows, const uint8_t *k_block, size_t n) {
    const size_t n_vectors = (n + 15) / 16;
    size_t r = 0;
    for (; r + Q8_ROWS <= rows->n; r += Q8_ROWS) q8_score_rows(rows, k_block, n_vectors, Q8_ROWS, r);
    switch (rows->n - r) {
    case 3: q8_score_rows(rows, k_block, n_vectors, 3, r); break;
    case 2: q8_score_rows(rows, k_block, n_vectors, 2, r); break;
    case 1: q8_score_rows(rows, k_block, n_vectors, 1, r); break;
    default: break;
    }
}

/* ---- values ------------------------------------------------------------------------------------------------------ */

/* The weights of row r for one unit of V: int16, and what they are to be multiplied with. */
IQ_INLINE float quantize_weights(const float *weights, const uint8_t *unit, size_t n, int16_t *out) {
    const f32x16 end = f32x16_set1((float)n), lane = f32x16_load(lane_numbers);
    f32x16 w[IQ_KV_BLOCK / 16];
    for (size_t j = 0; j < IQ_KV_BLOCK / 16; j++) { /* behind the last position there may be anything */
        const f32x16 product = f32x16_mul(f32x16_load(weights + 16 * j), f32x16_load_f16(unit + 32 * j));
        w[j] = f32x16_select_gt(end, f32x16_add(lane, f32x16_set1((float)(16 * j))), product, f32x16_zero());
    }
    const uint32_t low = i32x16_reduce_max2(i32x16_abs_bits(w[0]), i32x16_abs_bits(w[1]));
    const uint32_t high = i32x16_reduce_max2(i32x16_abs_bits(w[2]), i32x16_abs_bits(w[3]));
    const uint32_t bits = low > high ? low : high;
    const float most = iq_bits_to_f32(bits);
    if (bits >= 0x7f800000u || most < LEAST_AMAX) {
        memset(out, 0, IQ_KV_BLOCK * sizeof *out);
        return bits >= 0x7f800000u ? iq_bits_to_f32(0x7fc00000u) : 0.0f;
    }
    const f32x16 inverse = f32x16_set1(32767.0f / most);
    for (size_t j = 0; j < IQ_KV_BLOCK / 16; j++) f32x16_store_i16(out + 16 * j, f32x16_mul(w[j], inverse));
    return most / 32767.0f;
}

/* R rows, V vectors of 16 columns from row r, vector v (0 or 1) of unit b on; R and V are constants. */
IQ_INLINE void q8_sum_tile(const attention_rows *rows, const uint8_t *unit, size_t n, const size_t R, const size_t V,
                           size_t r, size_t b, size_t v) {
    i32x16 sum[Q8_ROWS][Q8_VECTORS];
    for (size_t i = 0; i < R; i++) {
        for (size_t j = 0; j < V; j++) sum[i][j] = i32x16_set1(0);
    }
    const uint8_t *codes = unit + IQ_KV_CODES + 32 * v;
    const int16_t *w = rows->scratch->weights[r];
    for (size_t p = 0; p < n; p += 2, codes += 2 * IQ_KV_COLUMNS) {
        kv_pairs x[Q8_VECTORS];
        for (size_t j = 0; j < V; j++) x[j] = kv_load_v(codes + 32 * j);
        for (size_t i = 0; i < R; i++) {
            for (size_t j = 0; j < V; j++) sum[i][j] = kv_dot2(sum[i][j], x[j], w + i * IQ_KV_BLOCK + p);
        }
    }
    const size_t head_dim = rows->task->head_dim;
    for (size_t i = 0; i < R; i++) {
        const f32x16 factor = f32x16_set1(rows->scratch->factor[r + i]);
        const f32x16 d = f32x16_set1(rows->scratch->weight_d[r + i]);
        for (size_t j = 0; j < V && 32 * b + 16 * (v + j) < head_dim; j++) {
            const size_t at = 32 * b + 16 * (v + j), left = head_dim - at;
            float *c = rows->task->out + (rows->first + r + i) * head_dim + at;
            const f32x16 now = f32x16_fma(i32x16_f32(sum[i][j]), d, f32x16_mul(load_up_to_16(c, left), factor));
            f32x16_store_n(c, now, left < 16 ? left : 16);
        }
    }
}

IQ_INLINE void q8_sum_rows(const attention_rows *rows, const uint8_t *unit, size_t n, const size_t R, size_t r,
                           size_t b) {
    for (size_t v = 0; v < 2; v += Q8_VECTORS) q8_sum_tile(rows, unit, n, R, Q8_VECTORS, r, b, v);
}

static void sum_block_q8(const attention_rows *rows, const uint8_t *v_block, size_t n) {
    for (size_t b = 0; b < q8_units(rows); b++) {
        const uint8_t *unit = v_block + b * IQ_KV_UNIT;
        for (size_t r = 0; r < rows->n; r++) {
            rows->scratch->weight_d[r] =
                quantize_weights(rows->scratch->scores[r], unit, n, rows->scratch->weights[r]);
        }
        size_t r = 0;
        for (; r + Q8_ROWS <= rows->n; r += Q8_ROWS) q8_sum_rows(rows, unit, n, Q8_ROWS, r, b);
        switch (rows->n - r) {
        case 3: q8_sum_rows(rows, unit, n, 3, r, b); break;
        case 2: q8_sum_rows(rows, unit, n, 2, r, b); break;
        case 1: q8_sum_rows(rows, unit, n, 1, r, b); break;
        default: break;
        }
    }
}
