/* Which sub-block decides how small d may be, and by which scales. Included by search.inc.h. */

IQ_INLINE float magnitude(float a) { return a < 0.0f ? -a : a; }

/* A candidate is good if its error is within a quarter of the best one's; a perfect fit has companions in rounding. */
#define GOOD_ENOUGH 1.25f
#define PERFECT_FIT 1e-9f

IQ_INLINE const iq_candidate *candidate_of(const search_plan *plan, const iq_lane_set *set, int i) {
    return &set->candidate[i / plan->grid.n_keep][i % plan->grid.n_keep];
}

/* In each lane, the size of the smallest good candidate scale. */
static lanes smallest_good_scale(const iq_scale_group *g, const search_plan *plan, const iq_lane_set *set) {
    const int n = n_variant(g->book) * plan->grid.n_keep;
    lanes residual = l_set(1e30f), fit = l_set(0.0f), smallest = l_set(1e30f);
    for (int i = 0; i < n; i++) {
        const iq_candidate *c = candidate_of(plan, set, i);
        residual = l_min(l_load(c->residual), residual);
        fit = l_max(l_mul(l_mul(l_load(c->best), l_load(c->best)), l_load(c->curve)), fit);
    }
    const lanes enough = l_add(l_mul(l_set(GOOD_ENOUGH), residual), l_mul(l_set(PERFECT_FIT), fit));
    for (int i = 0; i < n; i++) {
        const iq_candidate *c = candidate_of(plan, set, i);
        const lanes best = l_load(c->best), size = l_max(best, l_sub(l_set(0.0f), best));
        smallest = l_select(l_greater(l_load(c->residual), enough), smallest, l_min(size, smallest));
    }
    return smallest;
}

/* The sub-block whose smallest good scale is the largest: it decides how small d may be. Scales are often nearly free
 * (all weights alike, on one side of zero); the smallest leaves the finest scale codes to the others. */
static size_t deciding_sub_block(const iq_scale_group *g, const search_plan *plan) {
    size_t deciding = 0;
    float largest = 0.0f;
    for (size_t s = 0; s < g->n_set; s++) {
        alignas(64) float f[IQ_LANES];
        l_store(f, smallest_good_scale(g, plan, &g->set[s]));
        for (size_t i = 0; i < IQ_LANES; i++) {
            if (f[i] <= largest) continue;
            largest = f[i];
            deciding = s * IQ_LANES + i;
        }
    }
    return deciding;
}

/* The good scales of one sub-block, smallest first. */
typedef struct {
    float scale[IQ_VARIANTS * IQ_CANDIDATES];
    int n;
    bool perfect; /* nothing is lost in rounding x to codes: d's own rounding is the whole error */
} good_scales;

static void insert_scale(good_scales *good, float scale) {
    int i = good->n++;
    for (; i > 0 && magnitude(good->scale[i - 1]) > magnitude(scale); i--) good->scale[i] = good->scale[i - 1];
    good->scale[i] = scale;
}

static good_scales good_scales_of(const iq_scale_group *g, const search_plan *plan, size_t sub_block) {
    const iq_lane_set *set = &g->set[sub_block / IQ_LANES];
    const size_t lane = sub_block % IQ_LANES;
    const int n = n_variant(g->book) * plan->grid.n_keep;
    good_scales good = {.n = 0};
    float residual = 1e30f, fit = 0.0f;
    for (int i = 0; i < n; i++) {
        const iq_candidate *c = candidate_of(plan, set, i);
        if (c->residual[lane] < residual) residual = c->residual[lane];
        if (c->best[lane] * c->best[lane] * c->curve[lane] > fit) fit = c->best[lane] * c->best[lane] * c->curve[lane];
    }
    for (int i = 0; i < n; i++) {
        const iq_candidate *c = candidate_of(plan, set, i);
        if (c->residual[lane] <= GOOD_ENOUGH * residual + PERFECT_FIT * fit) insert_scale(&good, c->best[lane]);
    }
    good.perfect = residual <= PERFECT_FIT * fit;
    return good;
}
