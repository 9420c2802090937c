/* The softmax of attention, online: scores become weights 2^(c s - m), c = scale / ln 2, m the row's largest c s
 * so far. When a block raises m, `factor` says what the sums so far are to be multiplied with.
 *
 * SOFTEN_ROWS or SOFTEN_FEW rows at a time: their maxima and sums are folded into the lanes of one vector, and what is
 * done once per row is done for all of them together. Each row's result depends on nothing but the row. */

enum { SOFTEN_ROWS = 16, SOFTEN_FEW = 4, BLOCK_VECTORS = IQ_KV_BLOCK / 16 };

/* Rows [first, first + n) of a block. */
typedef struct {
    attention_scratch *scratch;
    size_t first, n;
    const uint32_t *n_visible; /* per row of the task */
    size_t before, end;        /* positions before the block, and before its last one's end */
    f32x16 scale;
} soften_group;

/* x in the positions that a row sees, `hidden` in the others. */
IQ_INLINE f32x16 if_visible(const soften_group *g, const bool MASKED, size_t row, size_t j, f32x16 x, float hidden) {
    if (!MASKED) return x;
    const float n_visible = (float)iq_min_size(g->n_visible[row], g->end) - (float)(g->before + 16 * j);
    return f32x16_select_gt(f32x16_set1(n_visible), f32x16_load(lane_numbers), x, f32x16_set1(hidden));
}

IQ_INLINE f32x16 largest_scores(const soften_group *g, const bool MASKED, const int ROWS) {
    f32x16 most[SOFTEN_ROWS];
    for (int i = 0; i < ROWS; i++) most[i] = f32x16_set1(-INFINITY);
    for (size_t i = 0; i < g->n; i++) {
        const float *scores = g->scratch->scores[g->first + i];
        for (size_t j = 0; j < BLOCK_VECTORS; j++) {
            const f32x16 s = f32x16_mul(f32x16_load(scores + 16 * j), g->scale);
            most[i] = f32x16_max(most[i], if_visible(g, MASKED, g->first + i, j, s, -INFINITY));
        }
    }
    return f32x16_row_maxima(most, ROWS);
}

/* Scores to weights; returns the sum of each row. Rows that see nothing yet have maximum 0. */
IQ_INLINE f32x16 weigh_scores(const soften_group *g, const bool MASKED, const int ROWS, f32x16 maxima) {
    float maximum[SOFTEN_ROWS];
    f32x16 sums[SOFTEN_ROWS];
    f32x16_store(maximum, maxima);
    for (int i = 0; i < ROWS; i++) sums[i] = f32x16_zero();
    for (size_t i = 0; i < g->n; i++) {
        float *scores = g->scratch->scores[g->first + i];
        const f32x16 subtracted = f32x16_set1(-maximum[i]);
        for (size_t j = 0; j < BLOCK_VECTORS; j++) {
            const f32x16 x = f32x16_fma(f32x16_load(scores + 16 * j), g->scale, subtracted);
            const f32x16 w = if_visible(g, MASKED, g->first + i, j, f32x16_exp2(x), 0.0f);
            f32x16_store(scores + 16 * j, w);
            sums[i] = f32x16_add(sums[i], w);
        }
    }
    return f32x16_row_sums(sums, ROWS);
}

IQ_INLINE void soften_rows(const soften_group *g, const bool MASKED, const int ROWS) {
    float *maxima = g->scratch->maxima + g->first, *sums = g->scratch->sums + g->first;
    const f32x16 lowest = f32x16_set1(-INFINITY), before = f32x16_load(maxima);
    const f32x16 now = f32x16_max(largest_scores(g, MASKED, ROWS), before);
    const f32x16 subtracted = f32x16_select_gt(now, lowest, now, f32x16_zero());
    const f32x16 factor = f32x16_exp2(f32x16_sub(before, subtracted));
    f32x16_store(maxima, now);
    f32x16_store(g->scratch->factor + g->first, factor);
    f32x16_store(sums, f32x16_fma(f32x16_load(sums), factor, weigh_scores(g, MASKED, ROWS, subtracted)));
}

/* All n rows, from row `first` of the task on; n_positions from `before` on have scores. */
static void soften_block(attention_scratch *scratch, const iq_attention_task *task, size_t first, size_t n,
                         size_t before, size_t n_positions) {
    for (size_t i = 0; i < n; i += SOFTEN_ROWS) {
        const soften_group g = {.scratch = scratch,
                                .first = i,
                                .n = iq_min_size(SOFTEN_ROWS, n - i),
                                .n_visible = task->n_visible + first,
                                .before = before,
                                .end = before + n_positions,
                                .scale = f32x16_set1(task->scale * 0x1.715476p+0f)};
        bool masked = n_positions < IQ_KV_BLOCK;
        for (size_t r = i; r < i + g.n; r++) masked |= g.n_visible[r] < g.end;
        const bool few = g.n <= SOFTEN_FEW;
        if (masked) {
            few ? soften_rows(&g, true, SOFTEN_FEW) : soften_rows(&g, true, SOFTEN_ROWS);
        } else {
            few ? soften_rows(&g, false, SOFTEN_FEW) : soften_rows(&g, false, SOFTEN_ROWS);
        }
    }
}
