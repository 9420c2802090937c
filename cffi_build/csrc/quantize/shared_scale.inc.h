/* One d for many sub-blocks: values of d that promise well, then the best of these. Included by search.inc.h. */

#define MOST_F32 2.1e34f /* as a d: 127 * 127 times it is finite */

/* The value of the file's number format nearest to d, in the group's unit; never infinite. */
static float round_d(const iq_scale_group *g, float d) {
    const float most = g->rule.d_is_f32 ? MOST_F32 : 65504.0f, real = d * g->unit;
    const float inside = real > most ? most : real < -most ? -most : real;
    return (g->rule.d_is_f32 ? inside : iq_f16_to_f32(iq_f32_to_f16(inside))) / g->unit;
}

#define D_SHORTLIST 8
#define D_COARSE 2
#define D_MOST 64

typedef struct {
    float d, error;
} d_error;

static void insert_d(d_error *list, int n, d_error entry) {
    for (int i = 0; i < n; i++) {
        if (list[i].d == entry.d) return;
        if (entry.error < list[i].error) {
            const d_error next = list[i];
            list[i] = entry;
            entry = next;
        }
    }
}

/* The same for sixteen values, but none becomes zero. */
static void round_some_d(const iq_scale_group *g, float d[IQ_LANES]) {
    const lanes most = l_set(MOST_F32 / g->unit), all = l_load(d);
    const lanes inside = l_max(l_min(all, most), l_sub(l_set(0.0f), most));
    l_store(d, g->rule.d_is_f32 ? inside : round_to_f16(all, g->unit));
}

/* Inserts n values of d into the shortlist, rounded. */
static void scan_d(const iq_scale_group *g, const search_plan *plan, const float *d, int n, d_error *list, int n_list) {
    for (int at = 0; at < n; at += IQ_LANES) {
        alignas(64) float rounded[IQ_LANES];
        for (int i = 0; i < IQ_LANES; i++) rounded[i] = d[at + i < n ? at + i : at];
        round_some_d(g, rounded);
        for (int i = 0; i < IQ_LANES && at + i < n; i += D_AT_ONCE) {
            float error[D_AT_ONCE];
            promised_errors(g, plan, rounded + i, error);
            for (int j = 0; j < D_AT_ONCE; j++) insert_d(list, n_list, (d_error){rounded[i + j], error[j]});
        }
    }
}

static void scan_range(const iq_scale_group *g, const search_plan *plan, float from, float to, int n, d_error *list,
                       int n_list) {
    float d[D_MOST] = {0.0f};
    for (int i = 0; i < n; i++) d[i] = from + (to - from) * (float)i / (float)(n - 1);
    scan_d(g, plan, d, n, list, n_list);
}

/* Values of d of which `scale` is a whole multiple: scale = d * code for the codes of the upper half. */
static void scan_divisors(const iq_scale_group *g, const search_plan *plan, float scale, int n, d_error *list) {
    float d[D_MOST];
    int count = 0;
    for (int i = 0; i < n && 2 * i < g->rule.k_highest; i++) {
        d[count++] = scale / (float)((g->rule.k_lowest + i) * g->rule.step + g->rule.phase);
        d[count++] = scale / (float)((g->rule.k_highest - i) * g->rule.step + g->rule.phase);
    }
    scan_d(g, plan, d, count, list, plan->n_exact);
}

/* Fills list[0..n_exact) with the most promising values of d, best first. */
static void shortlist_d(const iq_scale_group *g, const search_plan *plan, d_error *list) {
    const int far_code = g->rule.k_lowest * g->rule.step + g->rule.phase;
    const good_scales good = good_scales_of(g, plan, deciding_sub_block(g, plan));
    const float unit_d = good.scale[0] / (float)far_code, from = unit_d * plan->d_from, to = unit_d * plan->d_to;
    d_error coarse[D_COARSE];
    for (int i = 0; i < D_COARSE; i++) coarse[i] = (d_error){0.0f, 1e30f};
    for (int i = 0; i < plan->n_exact; i++) list[i] = (d_error){0.0f, 1e30f};
    scan_range(g, plan, from, to, plan->n_d, coarse, D_COARSE);
    if (far_code >= -16) scan_range(g, plan, -from, -to, plan->n_d, coarse, D_COARSE); /* -8..7 is far from even */
    const float step = (to - from) / (float)plan->n_d;
    for (int i = 0; i < D_COARSE; i++) {
        scan_range(g, plan, coarse[i].d - step, coarse[i].d + step, plan->n_d_fine, list, plan->n_exact);
    }
    scan_divisors(g, plan, good.scale[0], plan->n_divisor, list);
    for (int i = 0; i < good.n && good.perfect; i++) scan_divisors(g, plan, good.scale[i], D_MOST / 2, list);
}

static void keep_trial(iq_scale_group *g, float d) {
    g->d = d;
    for (size_t s = 0; s < g->n_set; s++) g->set[s].chosen = g->set[s].trial;
}

/* Searches the codes under d; keeps them if they are the best so far. Returns the least-squares d for these codes. */
static float try_d(iq_scale_group *g, const search_plan *plan, float d, double *lowest) {
    const group_sums sums = search_codes(g, plan, d);
    const float next = round_d(g, sums.dd > 0.0 ? (float)(sums.dx / sums.dd) : 0.0f);
    if (sums.error >= *lowest) return d;
    *lowest = sums.error;
    keep_trial(g, d);
    return next;
}

static void solve_d(iq_scale_group *g, const search_plan *plan) {
    d_error list[D_SHORTLIST];
    double lowest = 1e300;
    float next = 0.0f;
    shortlist_d(g, plan, list);
    if (magnitude(list[0].d) * g->unit < 0x1p-23f) try_d(g, plan, 0.0f, &lowest); /* fp16's smallest may be too much */
    for (int i = 0; i < plan->n_exact; i++) {
        const float improved = try_d(g, plan, list[i].d, &lowest);
        if (g->d == list[i].d) next = improved;
    }
    for (int i = 0; i < plan->n_polish && next != g->d; i++) next = try_d(g, plan, next, &lowest);
}

/* A superblock of the K types or a row of the KS types. */
static void solve_shared(iq_scale_group *g) {
    const search_plan plan = shared_plan(g);
    for (size_t s = 0; s < g->n_set; s++) {
        for (int v = 0; v < n_variant(g->book); v++) find_candidates(g, &plan, &g->set[s], v);
    }
    solve_d(g, &plan);
    for (size_t s = 0; s < g->n_set; s++) {
        iq_lane_set *set = &g->set[s];
        const scale_ladder ladder = make_ladder(&g->rule, g->d);
        const lanes scale = scale_of_k(&ladder, l_load(set->chosen.k));
        assign(g->book, set, g->sub, scales_at(scale, l_load(set->chosen.shift)));
    }
    g->d *= g->unit;
}
