/* Candidate scales of a sub-block, one variant at a time: which end of the book the extreme weight is laid at, and which
 * codebook. Included by search.inc.h. */

IQ_INLINE int n_codebook(const iq_book *book) { return book->shift != 0.0f ? 2 : 1; }
IQ_INLINE int n_variant(const iq_book *book) { return 2 * n_codebook(book); }

IQ_INLINE float variant_end(const iq_book *book, int v) {
    const bool lowest_is_far = book->highest < -book->lowest, far = v < n_codebook(book);
    return lowest_is_far == far ? book->lowest : book->highest;
}
IQ_INLINE float variant_shift(const iq_book *book, int v) { return v % n_codebook(book) ? book->shift : 0.0f; }

typedef struct {
    lanes best, curve, residual;
} lane_candidate;

static lane_candidate candidate_at(const iq_scale_group *g, const iq_lane_set *set, lane_scales at) {
    const lane_sums sums = measure(g->book, set, g->sub, at);
    const lanes best = l_mul(sums.xv, inverse_or_zero(sums.vv)), away = l_sub(at.scale, best);
    const lanes residual = l_sub(sums.error, l_mul(l_mul(away, away), sums.vv));
    return (lane_candidate){best, sums.vv, l_max(residual, l_set(0.0f))};
}

/* The scale that suits the codes assigned at some scale best, and by how much it lowers the error. */
typedef struct {
    lanes scale, gain;
} lane_fit;

IQ_INLINE void keep_better_fit(lane_fit *kept, const lane_sums *sums) {
    const lanes scale = l_mul(sums->xv, inverse_or_zero(sums->vv)), gain = l_mul(sums->xv, scale);
    kept->scale = l_select(l_greater(gain, kept->gain), scale, kept->scale);
    kept->gain = l_max(gain, kept->gain);
}

/* Candidate i of variant v: codes assigned at `scale`, then again at the scale that suits them. */
static void store_candidate(const iq_scale_group *g, const search_plan *plan, lanes scale, lanes shift,
                            const iq_lane_set *set, iq_candidate *to) {
    lane_candidate c = candidate_at(g, set, scales_at(scale, shift));
    for (int r = 1; r < plan->n_refine; r++) c = candidate_at(g, set, scales_at(c.best, shift));
    l_store(to->best, c.best);
    l_store(to->curve, c.curve);
    l_store(to->residual, c.residual);
}

/* The grid of scales is cut into n_keep ranges and the best fit of each is kept: where scale codes are coarse, the best
 * one of all may be out of reach. */
static void find_candidates(const iq_scale_group *g, const search_plan *plan, iq_lane_set *set, int v) {
    const float from = 1.0f / plan->grid.from, to = 1.0f / plan->grid.to, end = variant_end(g->book, v);
    const lanes shift = l_set(variant_shift(g->book, v)), extreme = l_load(set->extreme);
    const lanes inverse = inverse_or_zero(extreme);
    lane_fit kept[IQ_CANDIDATES];
    for (int i = 0; i < plan->grid.n_keep; i++) kept[i] = (lane_fit){l_set(0.0f), l_set(0.0f)};
    for (int i = 0; i < plan->grid.n_reach; i++) {
        const float per_extreme = (from + (to - from) * (float)i / (float)(plan->grid.n_reach - 1)) / end;
        const lane_scales at = {l_mul(extreme, l_set(per_extreme)), l_mul(inverse, l_set(1.0f / per_extreme)), shift};
        const lane_sums sums = fit(g->book, set, g->sub, at);
        keep_better_fit(&kept[i * plan->grid.n_keep / plan->grid.n_reach], &sums);
    }
    for (int i = 0; i < plan->grid.n_keep; i++) {
        store_candidate(g, plan, kept[i].scale, shift, set, &set->candidate[v][i]);
    }
}
