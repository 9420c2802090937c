/* The choice of scale codes for a given d: what the candidates promise, then codes assigned again. Included by
 * search.inc.h. */

/* A scale is k * step + start, k an integer in [lowest, highest]; k is the rounding of scale * slope + offset. */
typedef struct {
    lanes slope, offset, step, start, lowest, highest;
} scale_ladder;

static scale_ladder make_ladder(const iq_scale_rule *rule, float d) {
    const float step = d * (float)rule->step;
    return (scale_ladder){
        l_set(step != 0.0f ? 1.0f / step : 0.0f),
        l_set(-(float)rule->phase / (float)rule->step),
        l_set(step),
        l_set(d * (float)rule->phase),
        l_set((float)rule->k_lowest),
        l_set((float)rule->k_highest),
    };
}

IQ_INLINE lanes clamp_k(const scale_ladder *ladder, lanes k) {
    return l_min(l_max(k, ladder->lowest), ladder->highest);
}

IQ_INLINE lanes nearest_k(const scale_ladder *ladder, lanes scale) {
    return l_round(clamp_k(ladder, l_add(l_mul(scale, ladder->slope), ladder->offset)));
}

IQ_INLINE lanes scale_of_k(const scale_ladder *ladder, lanes k) { return l_add(l_mul(k, ladder->step), ladder->start); }

/* The parabola of a candidate at the scale nearest to its best that the ladder has. */
IQ_INLINE lanes parabola_error(const iq_candidate *c, const scale_ladder *ladder, lanes *k) {
    const lanes best = l_load(c->best);
    *k = nearest_k(ladder, best);
    const lanes away = l_sub(scale_of_k(ladder, *k), best);
    return l_add(l_mul(l_mul(away, away), l_load(c->curve)), l_load(c->residual));
}

#define D_AT_ONCE 4 /* hides the latency of one parabola behind the others */

/* What the candidates promise for each d. */
static void promised_errors(const iq_scale_group *g, const search_plan *plan, const float d[D_AT_ONCE],
                            float error[D_AT_ONCE]) {
    scale_ladder ladder[D_AT_ONCE];
    lanes total[D_AT_ONCE], k;
    for (int i = 0; i < D_AT_ONCE; i++) {
        ladder[i] = make_ladder(&g->rule, d[i]);
        total[i] = l_set(0.0f);
    }
    for (size_t s = 0; s < g->n_set; s++) {
        lanes lowest[D_AT_ONCE];
        for (int i = 0; i < D_AT_ONCE; i++) lowest[i] = l_set(1e30f);
        for (int v = 0; v < n_variant(g->book); v++) {
            for (int c = 0; c < plan->grid.n_keep; c++) {
                for (int i = 0; i < D_AT_ONCE; i++) {
                    lowest[i] = l_min(parabola_error(&g->set[s].candidate[v][c], &ladder[i], &k), lowest[i]);
                }
            }
        }
        for (int i = 0; i < D_AT_ONCE; i++) total[i] = l_add(total[i], lowest[i]);
    }
    for (int i = 0; i < D_AT_ONCE; i++) error[i] = l_sum(total[i]);
}

/* A choice of scale code and codebook, with what the candidates promise for it. */
typedef struct {
    lanes error, k, shift;
} lane_promise;

IQ_INLINE lane_promise select_promise(lanes_mask m, lane_promise yes, lane_promise no) {
    return (lane_promise){l_select(m, yes.error, no.error), l_select(m, yes.k, no.k), l_select(m, yes.shift, no.shift)};
}

/* The most promising choice of variant v. */
IQ_INLINE lane_promise promise_of_variant(const iq_scale_group *g, const iq_lane_set *set, int v, int n_keep,
                                          const scale_ladder *ladder) {
    lane_promise lowest = {l_set(1e30f), l_set(0.0f), l_set(variant_shift(g->book, v))};
    for (int i = 0; i < n_keep; i++) {
        lane_promise p = lowest;
        p.error = parabola_error(&set->candidate[v][i], ladder, &p.k);
        lowest = select_promise(l_greater(lowest.error, p.error), p, lowest);
    }
    return lowest;
}

/* The variants' most promising choices, in each lane best first. */
IQ_INLINE void order_promises(const iq_scale_group *g, const search_plan *plan, const iq_lane_set *set,
                              const scale_ladder *ladder, lane_promise list[IQ_VARIANTS]) {
    for (int v = 0; v < n_variant(g->book); v++) {
        lane_promise p = promise_of_variant(g, set, v, plan->grid.n_keep, ladder);
        for (int i = 0; i < v; i++) {
            const lanes_mask better = l_greater(list[i].error, p.error);
            const lane_promise held = list[i];
            list[i] = select_promise(better, p, held);
            p = select_promise(better, held, p);
        }
        list[v] = p;
    }
}

/* The best choice so far of sixteen sub-blocks, under one d. */
typedef struct {
    lanes error, k, shift, xv, vv;
} lane_choice;

IQ_INLINE lane_choice no_choice(void) {
    const lanes zero = l_set(0.0f);
    return (lane_choice){l_set(1e30f), zero, zero, zero, zero};
}

IQ_INLINE void try_k(const iq_scale_group *g, const iq_lane_set *set, const scale_ladder *ladder, lanes k, lanes shift,
                     lane_choice *c) {
    const lane_sums sums = measure(g->book, set, g->sub, scales_at(scale_of_k(ladder, k), shift));
    const lanes_mask better = l_greater(c->error, sums.error);
    c->error = l_select(better, sums.error, c->error);
    c->k = l_select(better, k, c->k);
    c->shift = l_select(better, shift, c->shift);
    c->xv = l_select(better, sums.xv, c->xv);
    c->vv = l_select(better, sums.vv, c->vv);
}

IQ_INLINE void try_neighbours(const iq_scale_group *g, const iq_lane_set *set, const scale_ladder *ladder, int n,
                              lane_choice *c) {
    const lanes k = c->k, shift = c->shift;
    for (int away = 1; away <= n; away++) {
        try_k(g, set, ladder, clamp_k(ladder, l_sub(k, l_set((float)away))), shift, c);
        try_k(g, set, ladder, clamp_k(ladder, l_add(k, l_set((float)away))), shift, c);
    }
}

/* Totals of a group under one d, and d's least-squares value for the same codes: dx / dd. */
typedef struct {
    double error, dx, dd;
} group_sums;

static void add_to_group(const iq_scale_rule *rule, const lane_choice *c, iq_lane_set *set, group_sums *sums) {
    const lanes code = l_add(l_mul(c->k, l_set((float)rule->step)), l_set((float)rule->phase));
    sums->error += (double)l_sum(c->error);
    sums->dx += (double)l_sum(l_mul(c->xv, code));
    sums->dd += (double)l_sum(l_mul(l_mul(c->vv, code), code));
    l_store(set->trial.k, c->k);
    l_store(set->trial.shift, c->shift);
}

/* Searches the codes of every sub-block under d from the candidates. */
static group_sums search_codes(const iq_scale_group *g, const search_plan *plan, float d) {
    const scale_ladder ladder = make_ladder(&g->rule, d);
    group_sums sums = {0.0, 0.0, 0.0};
    for (size_t s = 0; s < g->n_set; s++) {
        lane_choice c = no_choice();
        lane_promise list[IQ_VARIANTS];
        order_promises(g, plan, &g->set[s], &ladder, list);
        for (int i = 0; i < plan->n_try && i < n_variant(g->book); i++) {
            try_k(g, &g->set[s], &ladder, list[i].k, list[i].shift, &c);
        }
        try_neighbours(g, &g->set[s], &ladder, plan->n_neighbour, &c);
        add_to_group(&g->rule, &c, &g->set[s], &sums);
    }
    return sums;
}
