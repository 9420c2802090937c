/* Blocks of 32 with an fp16 scale of their own: each lane is solved by itself. Included by search.inc.h. */

typedef struct {
    lanes error, scale, best;
} lane_block; /* best: least-squares scale for the same codes */

IQ_INLINE void try_scale(const iq_scale_group *g, const iq_lane_set *set, lanes scale, lane_block *b) {
    const lanes rounded = round_to_f16(scale, g->unit);
    const lane_sums sums = measure(g->book, set, g->sub, scales_at(rounded, l_set(0.0f)));
    const lanes_mask better = l_greater(b->error, sums.error);
    b->error = l_select(better, sums.error, b->error);
    b->scale = l_select(better, rounded, b->scale);
    b->best = l_select(better, l_mul(sums.xv, inverse_or_zero(sums.vv)), b->best);
}

static void solve_own_scales(const iq_scale_group *g, const search_plan *plan, iq_lane_set *set) {
    lane_block b = {l_set(1e30f), l_set(0.0f), l_set(0.0f)};
    try_scale(g, set, l_set(0.0f), &b);
    for (int v = 0; v < n_variant(g->book); v++) {
        find_candidates(g, plan, set, v);
        for (int i = 0; i < plan->grid.n_keep; i++) try_scale(g, set, l_load(set->candidate[v][i].best), &b);
    }
    for (int i = 0; i < plan->n_polish; i++) try_scale(g, set, b.best, &b);
    assign(g->book, set, g->sub, scales_at(b.scale, l_set(0.0f)));
    l_store(set->block_scale, b.scale);
    l_store(set->block_offset, l_set(0.0f));
}

static void solve_scales(iq_scale_group *g) {
    const search_plan plan = block_plan(g);
    for (size_t s = 0; s < g->n_set; s++) solve_own_scales(g, &plan, &g->set[s]);
}
