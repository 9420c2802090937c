/* What one scale per lane gives: sums of a sub-block under nearest-code assignment. Included by search.inc.h. */

typedef struct {
    lanes scale, inverse, shift; /* x is near scale * (value + shift) */
} lane_scales;

typedef struct {
    lanes error; /* sum w (x - scale v)^2, if it was asked for */
    lanes xv;    /* sum w x v */
    lanes vv;    /* sum w v^2 */
} lane_sums;

/* FIT sums say which scale suits the codes; ERROR also how large the error is, not expanded into the other sums: it
 * tells nearly perfect fits apart. */
typedef enum { FIT, ERROR } sum_kind;

/* u = x * slope + start is the position of x in the book's cells. A zero scale assigns as if x were zero. */
typedef struct {
    lanes slope, start;
} cell_map;

IQ_INLINE cell_map map_to_cells(const iq_book *book, lanes inverse_scale, lanes shift) {
    const lanes cell = l_set(book->cell_scale);
    return (cell_map){l_mul(inverse_scale, cell), l_sub(l_set(book->cell_offset), l_mul(shift, cell))};
}

IQ_INLINE lanes inverse_or_zero(lanes scale) {
    const lanes zero = l_set(0.0f);
    const lanes_mask some = l_greater(l_mul(scale, scale), zero);
    return l_select(some, l_div(l_set(1.0f), l_select(some, scale, l_set(1.0f))), zero);
}

IQ_INLINE lane_scales scales_at(lanes scale, lanes shift) {
    return (lane_scales){scale, inverse_or_zero(scale), shift};
}

/* Adds weight `row`, coded as v (shift included), to the sums. */
IQ_INLINE void add_row(sum_kind sum, lane_sums *sums, const iq_lane_set *set, size_t row, lanes scale, lanes v) {
    const lanes x = l_load(set->x[row]), w = l_load(set->w[row]), wv = l_mul(w, v);
    if (sum == ERROR) {
        const lanes miss = l_sub(x, l_mul(scale, v));
        sums->error = l_add(sums->error, l_mul(l_mul(w, miss), miss));
    }
    sums->xv = l_add(sums->xv, l_mul(wv, x));
    sums->vv = l_add(sums->vv, l_mul(wv, v));
}

IQ_INLINE lane_sums no_sums(void) { return (lane_sums){l_set(0.0f), l_set(0.0f), l_set(0.0f)}; }

/* ---- each weight by itself ---- */

IQ_INLINE lane_sums measure_singles(sum_kind sum, iq_book_kind kind, const iq_book *book, const iq_lane_set *set,
                                    size_t sub, lane_scales at) {
    const cell_map map = map_to_cells(book, at.inverse, at.shift);
    lane_sums sums = no_sums();
    for (size_t j = 0; j < sub; j++) {
        const lanes u = l_add(l_mul(l_load(set->x[j]), map.slope), map.start);
        add_row(sum, &sums, set, j, at.scale, l_add(nearest(book, kind, u).value, at.shift));
    }
    return sums;
}

IQ_INLINE void assign_singles(iq_book_kind kind, const iq_book *book, iq_lane_set *set, size_t sub, lane_scales at) {
    const cell_map map = map_to_cells(book, at.inverse, at.shift);
    for (size_t j = 0; j < sub; j++) {
        const lanes u = l_add(l_mul(l_load(set->x[j]), map.slope), map.start);
        l_store_bytes(set->code[j], nearest(book, kind, u).index);
    }
}

/* ---- pairs (IQ2_KL) ---- */

/* The pair code of rows j, j + 1 with the least weighted error. */
IQ_INLINE lanes_int nearest_pair(const iq_book *book, const iq_lane_set *set, size_t j, lanes inverse_scale) {
    const iq_pair_levels *levels = &book->pairs;
    lanes cost[2][IQ_PAIR_LEVELS]; /* w (t - level)^2 - w t^2, t = x / scale */
    for (size_t row = 0; row < 2; row++) {
        const lanes w = l_load(set->w[j + row]), t = l_mul(l_load(set->x[j + row]), inverse_scale);
        const lanes slope = l_mul(l_mul(l_set(2.0f), w), t);
        for (int i = 0; i < IQ_PAIR_LEVELS; i++) {
            const lanes level = l_set(levels->level[i]);
            cost[row][i] = l_mul(level, l_sub(l_mul(w, level), slope));
        }
    }
    lanes least = l_set(1e30f), index = l_set(0.0f);
    for (int i = 0; i < IQ_PAIRS; i++) {
        const lanes c = l_add(cost[0][levels->first[i]], cost[1][levels->second[i]]);
        index = l_select(l_greater(least, c), l_set((float)i), index);
        least = l_min(c, least);
    }
    return l_truncate(index);
}

IQ_INLINE lane_sums measure_pairs(sum_kind sum, const iq_book *book, const iq_lane_set *set, size_t sub,
                                  lane_scales at) {
    lane_sums sums = no_sums();
    for (size_t j = 0; j < sub; j += 2) {
        const lanes_int code = nearest_pair(book, set, j, at.inverse);
        add_row(sum, &sums, set, j, at.scale, l_lookup(book->table[0].value, IQ_PAIRS, code));
        add_row(sum, &sums, set, j + 1, at.scale, l_lookup(book->table[1].value, IQ_PAIRS, code));
    }
    return sums;
}

/* The code of rows 2p, 2p + 1 goes to set->code[p]. */
IQ_INLINE void assign_pairs(const iq_book *book, iq_lane_set *set, size_t sub, lane_scales at) {
    for (size_t j = 0; j < sub; j += 2) l_store_bytes(set->code[j / 2], nearest_pair(book, set, j, at.inverse));
}

/* ---- four codes with an even number of bits between them (IQ4_KSS) ---- */

#define PARITY_ROWS 4

typedef struct {
    size_t row[PARITY_ROWS];
    lanes value[PARITY_ROWS];
    lanes_int code[PARITY_ROWS];
} parity_group;

/* The rows whose codes share a u16: bytes 2k and 2k + 1, low and high nibbles. */
IQ_INLINE parity_group parity_rows(size_t k) {
    return (parity_group){.row = {2 * k, 2 * k + 1, 2 * k + 16, 2 * k + 17}};
}

/* Each weight takes the nearer of the best even and the best odd code; where the sum of bits comes out odd, the weight
 * that loses least takes the other one. */
IQ_INLINE void nearest_parity(const iq_book *book, const iq_lane_set *set, const cell_map *map, lane_scales at,
                              parity_group *group) {
    lanes least = l_set(1e30f), loss[PARITY_ROWS], value[PARITY_ROWS][2];
    lanes_mask is_odd[PARITY_ROWS], flip = l_greater(l_set(0.0f), l_set(0.0f));
    lanes_int code[PARITY_ROWS][2];
    for (int r = 0; r < PARITY_ROWS; r++) {
        const lanes x = l_load(set->x[group->row[r]]), w = l_load(set->w[group->row[r]]);
        const lanes u = l_add(l_mul(x, map->slope), map->start);
        lanes cost[2];
        for (int odd = 0; odd < 2; odd++) {
            const nearest_code c = nearest_in_cells(&book->table[odd], 16, 8, 1, u);
            value[r][odd] = l_add(c.value, at.shift);
            code[r][odd] = c.index;
            const lanes miss = l_sub(x, l_mul(at.scale, value[r][odd]));
            cost[odd] = l_mul(l_mul(w, miss), miss);
        }
        is_odd[r] = l_greater(cost[0], cost[1]);
        flip = l_xor(flip, is_odd[r]);
        loss[r] = l_sub(l_max(cost[0], cost[1]), l_min(cost[0], cost[1]));
        least = l_min(loss[r], least);
    }
    for (int r = 0; r < PARITY_ROWS; r++) {
        const lanes_mask here = l_andnot(flip, l_greater(loss[r], least)), odd = l_xor(is_odd[r], here);
        flip = l_andnot(flip, here);
        group->value[r] = l_select(odd, value[r][1], value[r][0]);
        group->code[r] = l_int_select(odd, l_int_lookup(book->table[1].code, 8, code[r][1]),
                                      l_int_lookup(book->table[0].code, 8, code[r][0]));
    }
}

IQ_INLINE lane_sums measure_parity(sum_kind sum, const iq_book *book, const iq_lane_set *set, lane_scales at) {
    const cell_map map = map_to_cells(book, at.inverse, at.shift);
    lane_sums sums = no_sums();
    for (size_t k = 0; k < 8; k++) {
        parity_group group = parity_rows(k);
        nearest_parity(book, set, &map, at, &group);
        for (int r = 0; r < PARITY_ROWS; r++) add_row(sum, &sums, set, group.row[r], at.scale, group.value[r]);
    }
    return sums;
}

IQ_INLINE void assign_parity(const iq_book *book, iq_lane_set *set, lane_scales at) {
    const cell_map map = map_to_cells(book, at.inverse, at.shift);
    for (size_t k = 0; k < 8; k++) {
        parity_group group = parity_rows(k);
        nearest_parity(book, set, &map, at, &group);
        for (int r = 0; r < PARITY_ROWS; r++) l_store_bytes(set->code[group.row[r]], group.code[r]);
    }
}

/* ---- any book ---- */

IQ_INLINE lane_sums measure_as(sum_kind sum, const iq_book *book, const iq_lane_set *set, size_t sub, lane_scales at) {
    switch (book->kind) {
    case IQ_BOOK_4: return measure_singles(sum, IQ_BOOK_4, book, set, sub, at);
    case IQ_BOOK_8: return measure_singles(sum, IQ_BOOK_8, book, set, sub, at);
    case IQ_BOOK_16: return measure_singles(sum, IQ_BOOK_16, book, set, sub, at);
    case IQ_BOOK_32: return measure_singles(sum, IQ_BOOK_32, book, set, sub, at);
    case IQ_BOOK_64: return measure_singles(sum, IQ_BOOK_64, book, set, sub, at);
    case IQ_BOOK_PAIRS: return measure_pairs(sum, book, set, sub, at);
    case IQ_BOOK_PARITY: return measure_parity(sum, book, set, at);
    default: return measure_singles(sum, IQ_BOOK_LINEAR, book, set, sub, at);
    }
}

static lane_sums measure(const iq_book *book, const iq_lane_set *set, size_t sub, lane_scales at) {
    return measure_as(ERROR, book, set, sub, at);
}

static lane_sums fit(const iq_book *book, const iq_lane_set *set, size_t sub, lane_scales at) {
    return measure_as(FIT, book, set, sub, at);
}

static void assign(const iq_book *book, iq_lane_set *set, size_t sub, lane_scales at) {
    switch (book->kind) {
    case IQ_BOOK_4: assign_singles(IQ_BOOK_4, book, set, sub, at); break;
    case IQ_BOOK_8: assign_singles(IQ_BOOK_8, book, set, sub, at); break;
    case IQ_BOOK_16: assign_singles(IQ_BOOK_16, book, set, sub, at); break;
    case IQ_BOOK_32: assign_singles(IQ_BOOK_32, book, set, sub, at); break;
    case IQ_BOOK_64: assign_singles(IQ_BOOK_64, book, set, sub, at); break;
    case IQ_BOOK_PAIRS: assign_pairs(book, set, sub, at); break;
    case IQ_BOOK_PARITY: assign_parity(book, set, at); break;
    default: assign_singles(IQ_BOOK_LINEAR, book, set, sub, at); break;
    }
}
