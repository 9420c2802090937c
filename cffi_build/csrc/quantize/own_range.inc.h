/* Q4_1, Q5_1: blocks of 32 with a scale and a minimum, both fp16: x is near scale * q + offset. Included by
 * search.inc.h. */

typedef struct {
    lanes scale, offset;
} lane_range;

/* Sums under nearest-code assignment: enough for the error and for the least-squares line. */
typedef struct {
    lanes error, w, wq, wqq, wx, wxq;
} range_sums;

IQ_INLINE lanes range_code(const iq_book *book, lanes x, lanes offset, lanes inverse_scale) {
    const lanes t = l_mul(l_sub(x, offset), inverse_scale);
    return l_round(l_min(l_max(t, l_set(0.0f)), l_set(book->highest)));
}

static range_sums measure_range(const iq_book *book, const iq_lane_set *set, lane_range at) {
    const lanes zero = l_set(0.0f), inverse = inverse_or_zero(at.scale);
    range_sums sums = {zero, zero, zero, zero, zero, zero};
    for (size_t j = 0; j < IQ_SUB_MOST; j++) {
        const lanes x = l_load(set->x[j]), w = l_load(set->w[j]), q = range_code(book, x, at.offset, inverse);
        const lanes miss = l_sub(l_sub(x, at.offset), l_mul(at.scale, q)), wq = l_mul(w, q);
        sums.error = l_add(sums.error, l_mul(l_mul(w, miss), miss));
        sums.w = l_add(sums.w, w);
        sums.wq = l_add(sums.wq, wq);
        sums.wqq = l_add(sums.wqq, l_mul(wq, q));
        sums.wx = l_add(sums.wx, l_mul(w, x));
        sums.wxq = l_add(sums.wxq, l_mul(wq, x));
    }
    return sums;
}

/* The weighted least-squares line x = scale * q + offset; `otherwise` where all codes are alike. */
IQ_INLINE lane_range fitted_line(const range_sums *s, lane_range otherwise) {
    const lanes spread = l_sub(l_mul(s->w, s->wqq), l_mul(s->wq, s->wq));
    const lanes_mask some = l_greater(spread, l_mul(l_set(1e-5f), l_mul(s->w, s->wqq)));
    const lanes scale = l_mul(l_sub(l_mul(s->w, s->wxq), l_mul(s->wq, s->wx)), inverse_or_zero(spread));
    const lanes offset = l_mul(l_sub(s->wx, l_mul(scale, s->wq)), inverse_or_zero(s->w));
    return (lane_range){l_select(some, scale, otherwise.scale), l_select(some, offset, otherwise.offset)};
}

typedef struct {
    lanes error;
    lane_range range, fitted;
} lane_range_choice;

/* Rounds the line to fp16, the offset after the scale: it takes up what the scale's rounding moved. */
IQ_INLINE void try_range(const iq_scale_group *g, const iq_lane_set *set, lane_range at, lane_range_choice *c) {
    lane_range r = {round_to_f16(at.scale, g->unit), round_to_f16(at.offset, g->unit)};
    for (int pass = 0; pass < 2; pass++) {
        const range_sums sums = measure_range(g->book, set, r);
        const lane_range fitted = fitted_line(&sums, r);
        const lanes_mask better = l_greater(c->error, sums.error);
        c->error = l_select(better, sums.error, c->error);
        c->range.scale = l_select(better, r.scale, c->range.scale);
        c->range.offset = l_select(better, r.offset, c->range.offset);
        c->fitted.scale = l_select(better, fitted.scale, c->fitted.scale);
        c->fitted.offset = l_select(better, fitted.offset, c->fitted.offset);
        r.offset = round_to_f16(l_mul(l_sub(sums.wx, l_mul(r.scale, sums.wq)), inverse_or_zero(sums.w)), g->unit);
    }
}

IQ_INLINE void find_extremes(const iq_lane_set *set, lanes *lowest, lanes *highest) {
    *lowest = *highest = l_load(set->x[0]);
    for (size_t j = 1; j < IQ_SUB_MOST; j++) {
        *lowest = l_min(l_load(set->x[j]), *lowest);
        *highest = l_max(l_load(set->x[j]), *highest);
    }
}

/* All weights nearly alike: the offset holds them, and the scale what fp16 could not hold of the offset. */
IQ_INLINE void try_constant(const iq_scale_group *g, const iq_lane_set *set, lanes value, lane_range_choice *c) {
    const lanes offset = round_to_f16(value, g->unit), rest = l_sub(value, offset);
    const lane_range r = {l_mul(rest, l_set(1.0f / g->book->highest)), offset};
    try_range(g, set, r, c);
}

static void assign_range(const iq_book *book, iq_lane_set *set, lane_range at) {
    const lanes inverse = inverse_or_zero(at.scale);
    for (size_t j = 0; j < IQ_SUB_MOST; j++) {
        l_store_bytes(set->code[j], l_truncate(range_code(book, l_load(set->x[j]), at.offset, inverse)));
    }
}

/* A line of `codes` steps over [lowest, lowest + width], if there were that many: clipped above, on both sides, or
 * below. Outliers of little importance are often on one side. */
IQ_INLINE lane_range stretched_line(const iq_book *book, lanes lowest, lanes width, float codes, int side) {
    const lanes scale = l_mul(width, l_set(1.0f / codes));
    const lanes left_over = l_sub(width, l_mul(scale, l_set(book->highest)));
    return (lane_range){scale, l_add(lowest, l_mul(left_over, l_set(0.5f * (float)side)))};
}

/* Lines over a grid of slopes, each fitted to the codes it gives; then the best one again. */
static void solve_own_ranges(const iq_scale_group *g, const search_plan *plan, iq_lane_set *set) {
    const lanes zero = l_set(0.0f);
    lane_range_choice c = {l_set(1e30f), {zero, zero}, {zero, zero}};
    lanes lowest, highest;
    find_extremes(set, &lowest, &highest);
    const lanes width = l_sub(highest, lowest);
    try_range(g, set, (lane_range){zero, zero}, &c);
    try_constant(g, set, l_mul(l_add(lowest, highest), l_set(0.5f)), &c);
    for (int i = 0; i < 3 * plan->grid.n_reach; i++) {
        const float way = (float)(i / 3) / (float)(plan->grid.n_reach - 1);
        const float codes = g->book->highest * (plan->grid.from + (plan->grid.to - plan->grid.from) * way);
        const lane_range line = stretched_line(g->book, lowest, width, codes, i % 3);
        const range_sums sums = measure_range(g->book, set, line);
        try_range(g, set, fitted_line(&sums, line), &c);
    }
    for (int i = 0; i < plan->n_polish; i++) try_range(g, set, c.fitted, &c);
    assign_range(g->book, set, c.range);
    l_store(set->block_scale, c.range.scale);
    l_store(set->block_offset, c.range.offset);
}

static void solve_ranges(iq_scale_group *g) {
    const search_plan plan = block_plan(g);
    for (size_t s = 0; s < g->n_set; s++) solve_own_ranges(g, &plan, &g->set[s]);
}
