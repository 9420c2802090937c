/* Both products of attention with keys and values in q8_0, in integers.
 *
 * Scores: the query becomes int8 with a scale per 32 columns, as activations do for a matmul.
 *     score[row][position] = sum over 32-blocks b of  dq[row][b] d[position][b] (sum of q k)
 * Values: a position's weight times its scale becomes int16 with a scale per block of positions, which keeps 2^-16 of
 * the largest one: far finer than the values themselves.
 *     out[row][column] += dw[row] (sum over positions of w v)
 * Integer sums are exact, and each belongs to one row: a row's result does not depend on what shares the work. */

/* As many sums as registers hold. */
enum { Q8_ROWS = 4, Q8_SUM_ROWS = MANY_REGISTERS ? 8 : 4, Q8_VECTORS = MANY_REGISTERS ? 2 : 1 };

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
            if (FETCH_AHEAD && r == 0) PREFETCH(rows->ahead + b * IQ_KV_UNIT + 64 * (8 * v + c));
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

/* The scales of a unit of V in float, 0 behind the last of n positions, where anything may stand. False: some are NaN
 * or infinite. */
IQ_INLINE bool widen_scales(const uint8_t *unit, size_t n, float *out) {
    const f32x16 end = f32x16_set1((float)n), lane = f32x16_load(lane_numbers);
    uint32_t most = 0;
    for (size_t j = 0; j < BLOCK_VECTORS; j++) {
        const f32x16 number = f32x16_add(lane, f32x16_set1((float)(16 * j)));
        const f32x16 d = f32x16_select_gt(end, number, f32x16_load_f16(unit + 32 * j), f32x16_zero());
        f32x16_store(out + 16 * j, d);
        const uint32_t bits = i32x16_reduce_max2(i32x16_abs_bits(d), i32x16_abs_bits(d));
        if (bits > most) most = bits;
    }
    return most < 0x7f800000u;
}

/* The largest products of weight and scale of rows [first, first + n_rows) for one unit of V. */
IQ_INLINE f32x16 largest_products(const attention_scratch *s, size_t first, size_t n_rows, const int ROWS) {
    f32x16 most[SOFTEN_ROWS];
    for (int i = 0; i < ROWS; i++) most[i] = f32x16_zero();
    for (size_t i = 0; i < n_rows; i++) {
        for (size_t j = 0; j < BLOCK_VECTORS; j++) {
            const f32x16 d = f32x16_load(s->scales + 16 * j), w = f32x16_load(s->scores[first + i] + 16 * j);
            most[i] = f32x16_max(most[i], f32x16_abs(f32x16_mul(w, d)));
        }
    }
    return f32x16_row_maxima(most, ROWS);
}

/* The weights of those rows for one unit of V: int16, and in weight_d what they are to be multiplied with. */
IQ_INLINE void quantize_weights(attention_scratch *s, size_t first, size_t n_rows) {
    const f32x16 most = n_rows <= SOFTEN_FEW ? largest_products(s, first, n_rows, SOFTEN_FEW)
                                             : largest_products(s, first, n_rows, SOFTEN_ROWS);
    const f32x16 least = f32x16_set1(LEAST_AMAX), zero = f32x16_zero();
    const f32x16 kept = f32x16_select_gt(most, least, most, zero), full = f32x16_set1(32767.0f);
    float inverse[SOFTEN_ROWS];
    f32x16_store(s->weight_d + first, f32x16_div(kept, full));
    f32x16_store(inverse, f32x16_select_gt(most, least, f32x16_div(full, most), zero));
    for (size_t i = 0; i < n_rows; i++) {
        for (size_t j = 0; j < BLOCK_VECTORS; j++) {
            const f32x16 d = f32x16_load(s->scales + 16 * j), w = f32x16_load(s->scores[first + i] + 16 * j);
            f32x16_store_i16(s->weights[first + i] + 16 * j, f32x16_mul(f32x16_mul(w, d), f32x16_set1(inverse[i])));
        }
    }
}

/* R rows, V vectors of 16 columns from row r, vector v (0 or 1) of unit b on; R and V are constants. */
IQ_INLINE void q8_sum_tile(const attention_rows *rows, const uint8_t *unit, size_t n, const size_t R, const size_t V,
                           size_t r, size_t b, size_t v) {
    i32x16 sum[Q8_SUM_ROWS][Q8_VECTORS];
    for (size_t i = 0; i < R; i++) {
        for (size_t j = 0; j < V; j++) sum[i][j] = i32x16_set1(0);
    }
    const uint8_t *codes = unit + IQ_KV_CODES + 32 * v;
    const int16_t *w = rows->scratch->weights[r];
    for (size_t p = 0; p < n; p += 2, codes += 2 * IQ_KV_COLUMNS) {
        if (FETCH_AHEAD && r == 0) PREFETCH(rows->ahead + b * IQ_KV_UNIT + 32 * (32 * v + p / 2));
        kv_pairs x[Q8_VECTORS];
        for (size_t j = 0; j < V; j++) x[j] = kv_load_v(codes + 32 * j);
        for (size_t i = 0; i < R; i++) {
            for (size_t j = 0; j < V; j++) sum[i][j] = kv_dot2(sum[i][j], x[j], w + i * IQ_KV_BLOCK + p);
        }
    }
    const size_t head_dim = rows->task->head_dim, first = 32 * b + 16 * v;
    float *c = rows->task->out + (rows->first + r) * head_dim + first;
    for (size_t i = 0; i < R; i++, c += head_dim) {
        const f32x16 factor = f32x16_set1(rows->scratch->factor[r + i]);
        const f32x16 d = f32x16_set1(rows->scratch->weight_d[r + i]);
        for (size_t j = 0; j < V && first + 16 * j < head_dim; j++) {
            const size_t left = head_dim - first - 16 * j;
            const f32x16 before = f32x16_mul(load_up_to_16(c + 16 * j, left), factor);
            store_up_to_16(c + 16 * j, f32x16_fma(i32x16_f32(sum[i][j]), d, before), left);
        }
    }
}

IQ_INLINE void q8_sum_rows(const attention_rows *rows, const uint8_t *unit, size_t n, const size_t R, size_t r,
                           size_t b) {
    for (size_t v = 0; v < 2; v += Q8_VECTORS) q8_sum_tile(rows, unit, n, R, Q8_VECTORS, r, b, v);
}

static void sum_unit_q8(const attention_rows *rows, const uint8_t *unit, size_t n, size_t b) {
    size_t r = 0;
    for (; r + Q8_SUM_ROWS <= rows->n; r += Q8_SUM_ROWS) q8_sum_rows(rows, unit, n, Q8_SUM_ROWS, r, b);
    if (Q8_SUM_ROWS > 4 && r + 4 <= rows->n) q8_sum_rows(rows, unit, n, 4, r, b), r += 4;
    switch (rows->n - r) {
    case 3: q8_sum_rows(rows, unit, n, 3, r, b); break;
    case 2: q8_sum_rows(rows, unit, n, 2, r, b); break;
    case 1: q8_sum_rows(rows, unit, n, 1, r, b); break;
    default: break;
    }
}

static void sum_block_q8(const attention_rows *rows, const uint8_t *v_block, size_t n) {
    attention_scratch *s = rows->scratch;
    for (size_t b = 0; b < q8_units(rows); b++) {
        const uint8_t *unit = v_block + b * IQ_KV_UNIT;
        const bool finite = widen_scales(unit, n, s->scales);
        for (size_t r = 0; r < rows->n; r += SOFTEN_ROWS) {
            quantize_weights(s, r, iq_min_size(SOFTEN_ROWS, rows->n - r));
        }
        for (size_t r = 0; !finite && r < rows->n; r++) s->weight_d[r] = iq_bits_to_f32(0x7fc00000u);
        sum_unit_q8(rows, unit, n, b);
    }
}
