/* Candidate scales of a sub-block, one variant (sign of the scale, codebook) at a time. Included by search.inc.h. */

IQ_INLINE int n_variant(const iq_book *book) { return book->shift != 0.0f ? 4 : 2; }
IQ_INLINE float variant_sign(int v) { return v & 1 ? -1.0f : 1.0f; }
IQ_INLINE float variant_shift(const iq_book *book, int v) { return v & 2 ? book->shift : 0.0f; }

typedef struct {
    lanes best, curve, residual;
} lane_candidate;

static lane_candidate candidate_at(const iq_scale_group *g, const iq_lane_set *set, lane_scales at) {
    const lane_sums sums = measure(g->book, set, g->sub, at);
    const lanes best = l_mul(sums.xv, inverse_or_zero(sums.vv)), away = l_sub(at.scale, best);
    const lanes residual = l_sub(sums.error, l_mul(l_mul(away, away), sums.vv));
    return (lane_candidate){best, sums.vv, l_max(residual, l_set(0.0f))};
}

IQ_INLINE void keep_better(lane_candidate *kept, lane_candidate c) {
    const lanes_mask better = l_greater(kept->residual, c.residual);
    kept->best = l_select(better, c.best, kept->best);
    kept->curve = l_select(better, c.curve, kept->curve);
    kept->residual = l_min(c.residual, kept->residual);
}

/* The grid of scales is cut into n_keep ranges and the best candidate of each is kept: where scale codes are coarse,
 * the best one of all may be out of reach. */
static void find_candidates(const iq_scale_group *g, const search_plan *plan, iq_lane_set *set, int v) {
    const float from = 1.0f / (plan->reach_from * iq_book_near_end(g->book));
    const float to = 1.0f / (plan->reach_to * iq_book_far_end(g->book));
    const lanes shift = l_set(variant_shift(g->book, v)), largest = l_load(set->largest);
    const lanes inverse = inverse_or_zero(largest);
    lane_candidate list[IQ_CANDIDATES];
    for (int i = 0; i < plan->n_keep; i++) list[i] = (lane_candidate){l_set(0.0f), l_set(0.0f), l_set(1e30f)};
    for (int i = 0; i < plan->n_reach; i++) {
        const float per_largest = from + (to - from) * (float)i / (float)(plan->n_reach - 1);
        const float signed_per_largest = variant_sign(v) * per_largest;
        const lane_scales at = {l_mul(largest, l_set(signed_per_largest)),
                                l_mul(inverse, l_set(1.0f / signed_per_largest)), shift};
        keep_better(&list[i * plan->n_keep / plan->n_reach], candidate_at(g, set, at));
    }
    for (int r = 0; r < plan->n_refine; r++) {
        for (int i = 0; i < plan->n_keep; i++) {
            keep_better(&list[i], candidate_at(g, set, scales_at(list[i].best, shift)));
        }
    }
    for (int i = 0; i < plan->n_keep; i++) {
        l_store(set->candidate[v][i].best, list[i].best);
        l_store(set->candidate[v][i].curve, list[i].curve);
        l_store(set->candidate[v][i].residual, list[i].residual);
    }
}
