/* One superblock of sixteen rows with error feedback (feedback.h). Included by search.inc.h. */

#define TRIALS 2 /* scales tried side by side, so that one's arithmetic hides the other's latency */

typedef struct {
    lanes scale, shift, slope, start; /* q = scale * (value + shift); slope and start as in cell_map */
} trial_scale;

typedef struct {
    lanes target[IQ_SUB_MOST];
    lanes loss;
} trial_state;

static trial_scale trial_of(const iq_feedback_panel *p, lanes d, lanes k, lanes shift) {
    const lanes code = l_add(l_mul(k, l_set((float)p->rule.step)), l_set((float)p->rule.phase));
    const lanes scale = l_mul(d, code), cell = l_set(p->book->cell_scale);
    return (trial_scale){scale, shift, l_mul(inverse_or_zero(scale), cell),
                         l_sub(l_set(p->book->cell_offset), l_mul(shift, cell))};
}

/* Column j of the sub-block at `first` takes the value q: counts the loss, passes the error on to the sub-block's later
 * columns; returns it. */
IQ_INLINE lanes settle(const iq_feedback_panel *p, size_t first, size_t j, lanes q, trial_state *s) {
    const float *feedback = p->feedback + (first + j) * p->stride + first;
    const lanes miss = l_sub(s->target[j], q), error = l_sub(l_load(p->weight[first + j]), q);
    s->loss = l_add(s->loss, l_mul(l_set(p->curvature[first + j]), l_mul(miss, miss)));
    for (size_t i = j + 1; i < p->sub; i++) s->target[i] = l_add(s->target[i], l_mul(error, l_set(feedback[i])));
    return error;
}

/* ---- each weight by itself ---- */

IQ_INLINE void try_singles(iq_book_kind kind, const iq_feedback_panel *p, size_t first, const trial_scale *at, size_t n,
                           trial_state *s, iq_feedback_codes *out) {
    for (size_t j = 0; j < p->sub; j++) {
        for (size_t i = 0; i < n; i++) {
            const lanes u = l_add(l_mul(s[i].target[j], at[i].slope), at[i].start);
            const nearest_code c = nearest(p->book, kind, u);
            const lanes error = settle(p, first, j, l_mul(at[i].scale, l_add(c.value, at[i].shift)), &s[i]);
            if (!out) continue;
            l_store(out->error[first + j], error);
            l_store_bytes(out->code[first + j], c.index);
        }
    }
}

/* ---- pairs (IQ2_KL) ---- */

IQ_INLINE lanes_int best_pair(const iq_feedback_panel *p, size_t at, lanes scale, lanes t0, lanes t1) {
    const iq_pair_levels *levels = &p->book->pairs;
    const lanes d0 = l_set(p->curvature[at]), d1 = l_set(p->curvature[at + 1]), w0 = l_load(p->weight[at]);
    const lanes pass = l_set(p->feedback[at * p->stride + at + 1]);
    lanes value[IQ_PAIR_LEVELS], loss[IQ_PAIR_LEVELS], second[IQ_PAIR_LEVELS];
    for (int i = 0; i < IQ_PAIR_LEVELS; i++) {
        value[i] = l_mul(scale, l_set(levels->level[i]));
        const lanes miss = l_sub(t0, value[i]);
        loss[i] = l_mul(d0, l_mul(miss, miss));
        second[i] = l_add(t1, l_mul(l_sub(w0, value[i]), pass));
    }
    lanes least = l_set(1e30f), index = l_set(0.0f);
    for (int i = 0; i < IQ_PAIRS; i++) {
        const lanes miss = l_sub(second[levels->first[i]], value[levels->second[i]]);
        const lanes total = l_add(loss[levels->first[i]], l_mul(d1, l_mul(miss, miss)));
        index = l_select(l_greater(least, total), l_set((float)i), index);
        least = l_min(total, least);
    }
    return l_truncate(index);
}

IQ_INLINE void try_pairs(const iq_feedback_panel *p, size_t first, const trial_scale *at, size_t n, trial_state *s,
                         iq_feedback_codes *out) {
    for (size_t j = 0; j < p->sub; j += 2) {
        for (size_t i = 0; i < n; i++) {
            const lanes_int code = best_pair(p, first + j, at[i].scale, s[i].target[j], s[i].target[j + 1]);
            for (size_t half = 0; half < 2; half++) {
                const lanes value = l_lookup(p->book->table[half].value, IQ_PAIRS, code);
                const lanes error = settle(p, first, j + half, l_mul(at[i].scale, value), &s[i]);
                if (out) l_store(out->error[first + j + half], error);
            }
            if (out) l_store_bytes(out->code[first + j / 2], code);
        }
    }
}

/* ---- four codes with an even number of bits between them (IQ4_KSS) ---- */

typedef struct {
    lanes loss;
    lanes value[PARITY_ROWS]; /* shift included */
    lanes_int code[PARITY_ROWS];
} parity_path;

/* Member `member` of the group at column `at` takes the nearest code whose bits add up to even (0) or odd (1). */
IQ_INLINE void extend_path(const iq_feedback_panel *p, size_t at, const trial_scale *scale, const lanes *base,
                           int member, int odd, parity_path *path) {
    lanes target = base[member];
    for (int i = 0; i < member; i++) {
        const lanes error = l_sub(l_load(p->weight[at + (size_t)i]), l_mul(scale->scale, path->value[i]));
        target = l_add(target, l_mul(error, l_set(p->feedback[(at + (size_t)i) * p->stride + at + (size_t)member])));
    }
    const iq_book_table *table = &p->book->table[odd];
    const nearest_code c = nearest_in_cells(table, 16, 8, 1, l_add(l_mul(target, scale->slope), scale->start));
    path->value[member] = l_add(c.value, scale->shift);
    path->code[member] = l_int_lookup(table->code, 8, c.index);
    const lanes miss = l_sub(target, l_mul(scale->scale, path->value[member]));
    path->loss = l_add(path->loss, l_mul(l_set(p->curvature[at + (size_t)member]), l_mul(miss, miss)));
}

IQ_INLINE void keep_better_path(parity_path *best, const parity_path *other) {
    const lanes_mask better = l_greater(best->loss, other->loss);
    best->loss = l_select(better, other->loss, best->loss);
    for (int i = 0; i < PARITY_ROWS; i++) {
        best->value[i] = l_select(better, other->value[i], best->value[i]);
        best->code[i] = l_int_select(better, other->code[i], best->code[i]);
    }
}

/* Every way to give the first three codes odd or even bits; the fourth makes the sum even. */
static parity_path best_parity(const iq_feedback_panel *p, size_t at, const trial_scale *scale, const lanes *base) {
    parity_path best = {.loss = l_set(1e30f)};
    for (int bits = 0; bits < 8; bits++) {
        parity_path path = {.loss = l_set(0.0f)};
        for (int member = 0; member < 3; member++) extend_path(p, at, scale, base, member, bits >> member & 1, &path);
        extend_path(p, at, scale, base, 3, (bits ^ bits >> 1 ^ bits >> 2) & 1, &path);
        if (bits == 0) best = path;
        keep_better_path(&best, &path);
    }
    return best;
}

IQ_INLINE void try_parity(const iq_feedback_panel *p, size_t first, const trial_scale *at, size_t n, trial_state *s,
                          iq_feedback_codes *out) {
    for (size_t j = 0; j < p->sub; j += PARITY_ROWS) {
        for (size_t i = 0; i < n; i++) {
            const parity_path path = best_parity(p, first + j, &at[i], &s[i].target[j]);
            for (size_t r = 0; r < PARITY_ROWS; r++) {
                const lanes error = settle(p, first, j + r, l_mul(at[i].scale, path.value[r]), &s[i]);
                if (!out) continue;
                l_store(out->error[first + j + r], error);
                l_store_bytes(out->code[first + j + r], path.code[r]);
            }
        }
    }
}

/* ---- a sub-block ---- */

/* Assigns codes under each of n scales; `out` (with n = 1 only) receives codes and errors. */
static void try_scales(const iq_feedback_panel *p, size_t first, const trial_scale *at, size_t n,
                       const trial_state *from, lanes *loss, iq_feedback_codes *out) {
    trial_state s[TRIALS];
    for (size_t i = 0; i < n; i++) s[i] = *from;
    switch (p->book->kind) {
    case IQ_BOOK_4:
        try_singles(IQ_BOOK_4, p, first, at, n, s, out);
        break;
    case IQ_BOOK_8:
        try_singles(IQ_BOOK_8, p, first, at, n, s, out);
        break;
    case IQ_BOOK_16:
        try_singles(IQ_BOOK_16, p, first, at, n, s, out);
        break;
    case IQ_BOOK_32:
        try_singles(IQ_BOOK_32, p, first, at, n, s, out);
        break;
    case IQ_BOOK_64:
        try_singles(IQ_BOOK_64, p, first, at, n, s, out);
        break;
    case IQ_BOOK_PAIRS:
        try_pairs(p, first, at, n, s, out);
        break;
    case IQ_BOOK_PARITY:
        try_parity(p, first, at, n, s, out);
        break;
    default:
        try_singles(IQ_BOOK_LINEAR, p, first, at, n, s, out);
        break;
    }
    for (size_t i = 0; i < n; i++) loss[i] = s[i].loss;
}

typedef struct {
    lanes loss, k, shift;
} sub_block_choice;

static lanes nearest_step(const iq_scale_rule *rule, lanes k) {
    return l_min(l_max(l_round(k), l_set((float)rule->k_lowest)), l_set((float)rule->k_highest));
}

static void try_two(const iq_feedback_panel *p, size_t first, lanes d, const lanes k[2], const lanes shift[2],
                    const trial_state *from, sub_block_choice *best) {
    trial_scale at[TRIALS];
    lanes loss[TRIALS];
    for (int i = 0; i < TRIALS; i++) at[i] = trial_of(p, d, k[i], shift[i]);
    try_scales(p, first, at, TRIALS, from, loss, NULL);
    for (int i = 0; i < TRIALS; i++) {
        const lanes_mask better = l_greater(best->loss, loss[i]);
        best->loss = l_select(better, loss[i], best->loss);
        best->k = l_select(better, k[i], best->k);
        best->shift = l_select(better, shift[i], best->shift);
    }
}

/* Where the largest target may land, as a share of the codebook's end: from, to and the number of steps. */
typedef struct {
    float from, to;
    int n;
} reach;

static reach reach_of(const iq_feedback_panel *p) {
    const int n = p->book->n_code;
    const int per_effort = p->effort == IQ_EFFORT_FAST ? 4 : p->effort == IQ_EFFORT_NORMAL ? 8 : 14;
    if (p->book->kind == IQ_BOOK_PAIRS) return (reach){0.5f, 1.1f, per_effort};
    return n <= 4    ? (reach){0.45f, 1.1f, per_effort}
           : n <= 8  ? (reach){0.6f, 1.08f, per_effort}
           : n <= 16 ? (reach){0.72f, 1.05f, per_effort}
           : n <= 32 ? (reach){0.82f, 1.03f, per_effort}
                     : (reach){0.88f, 1.02f, per_effort};
}

/* The smallest scale of one sign under which the codebook reaches every target. */
static lanes fitting_scale(const iq_book *book, lanes highest, lanes lowest, lanes shift, bool negative) {
    const lanes top = l_add(l_set(book->highest), shift), bottom = l_add(l_set(book->lowest), shift);
    if (!negative) return l_max(l_div(highest, top), l_div(lowest, bottom));
    return l_min(l_div(highest, bottom), l_div(lowest, top));
}

static sub_block_choice search_sub_block(const iq_feedback_panel *p, size_t first, lanes d, const trial_state *from) {
    const lanes zero = l_set(0.0f), inverse_d = inverse_or_zero(l_mul(d, l_set((float)p->rule.step)));
    const lanes inverse_step = l_set((float)p->rule.phase / (float)p->rule.step);
    const reach r = reach_of(p);
    lanes highest = zero, lowest = zero;
    for (size_t j = 0; j < p->sub; j++) {
        highest = l_max(from->target[j], highest);
        lowest = l_min(from->target[j], lowest);
    }
    sub_block_choice best = {l_set(1e30f), zero, zero};
    const bool two_books = p->book->shift != 0.0f;
    for (int negative = 0; negative < 2; negative++) {
        for (int i = 0; i < r.n; i += two_books ? 1 : 2) {
            lanes k[2], shift[2];
            for (int v = 0; v < 2; v++) {
                const int step = two_books ? i : i + v;
                const float share = r.from + (r.to - r.from) * (float)step / (float)(r.n - 1);
                shift[v] = two_books && v ? l_set(p->book->shift) : zero;
                const lanes scale = l_mul(fitting_scale(p->book, highest, lowest, shift[v], negative != 0), l_set(share));
                k[v] = nearest_step(&p->rule, l_sub(l_mul(scale, inverse_d), inverse_step));
            }
            try_two(p, first, d, k, shift, from, &best);
        }
    }
    const lanes near[2] = {nearest_step(&p->rule, l_sub(best.k, l_set(1.0f))),
                           nearest_step(&p->rule, l_add(best.k, l_set(1.0f)))};
    const lanes same[2] = {best.shift, best.shift};
    try_two(p, first, d, near, same, from, &best);
    return best;
}

/* ---- a superblock ---- */

#define SUMS 8 /* columns at once: as many sums as hide the latency of an addition */

static void add_errors(const float (*error)[IQ_LANES], size_t n, const float *feedback, size_t stride,
                       float (*sum)[IQ_LANES], size_t n_sum) {
    for (size_t c = 0; c < n_sum; c += SUMS) {
        lanes s[SUMS];
        for (size_t j = 0; j < SUMS; j++) s[j] = l_load(sum[c + j]);
        for (size_t i = 0; i < n; i++) {
            const lanes e = l_load(error[i]);
            for (size_t j = 0; j < SUMS; j++) s[j] = l_add(s[j], l_mul(e, l_set(feedback[i * stride + c + j])));
        }
        for (size_t j = 0; j < SUMS; j++) l_store(sum[c + j], s[j]);
    }
}

static trial_state load_state(const iq_feedback_panel *p, size_t first, const iq_feedback_codes *codes) {
    trial_state s = {.loss = l_set(0.0f)};
    for (size_t j = 0; j < p->sub; j++) s.target[j] = l_load(codes->target[first + j]);
    return s;
}

/* Passes the errors of the sub-block at `first` on to the columns after it. */
static void pass_on(const iq_feedback_panel *p, size_t first, iq_feedback_codes *codes) {
    const size_t after = first + p->sub;
    add_errors((const float(*)[IQ_LANES])codes->error + first, p->sub, p->feedback + first * p->stride + after,
               p->stride, codes->target + after, IQ_SUPERBLOCK - after);
}

static void encode_panel(const iq_feedback_panel *p, iq_feedback_codes *codes) {
    const lanes d = l_load(codes->d);
    lanes total = l_set(0.0f);
    memcpy(codes->target, p->target, sizeof p->target);
    for (size_t first = 0; first < IQ_SUPERBLOCK; first += p->sub) {
        const trial_state from = load_state(p, first, codes);
        const sub_block_choice best = search_sub_block(p, first, d, &from);
        const trial_scale at = trial_of(p, d, best.k, best.shift);
        lanes loss;
        try_scales(p, first, &at, 1, &from, &loss, codes);
        pass_on(p, first, codes);
        l_store(codes->k[first / p->sub], best.k);
        l_store(codes->shift[first / p->sub], best.shift);
        total = l_add(total, loss);
    }
    l_store(codes->loss, total);
}

static void measure_panel(const iq_feedback_panel *p, iq_feedback_codes *codes) {
    lanes total = l_set(0.0f);
    memcpy(codes->target, p->target, sizeof p->target);
    for (size_t first = 0; first < IQ_SUPERBLOCK; first += p->sub) {
        trial_state s = load_state(p, first, codes);
        for (size_t j = 0; j < p->sub; j++) {
            settle(p, first, j, l_sub(l_load(p->weight[first + j]), l_load(codes->error[first + j])), &s);
        }
        pass_on(p, first, codes);
        total = l_add(total, s.loss);
    }
    l_store(codes->loss, total);
}
