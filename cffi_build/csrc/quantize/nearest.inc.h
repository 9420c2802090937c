/* The nearest code of a value, sixteen lanes at a time. Included by search.inc.h after a lanes_*.h. */

typedef struct {
    lanes value;
    lanes_int index;
} nearest_code;

/* Codes of table `t` nearest to u (a position in cells). */
#ifdef L_BYTE_LOOKUPS
IQ_INLINE nearest_code nearest_in_cells(const iq_book_table *t, int n_cell, int n_code, int n_edge, lanes u) {
    const lanes steps = l_mul(u, l_set(IQ_CELL_STEPS)), most = l_set((float)(n_cell * IQ_CELL_STEPS - 1));
    const lane_position at = l_split_7(l_truncate(l_min(l_max(steps, l_set(0.0f)), most)));
    lane_bytes code = l_byte_lookup(t->byte.base, n_cell, at.cell);
    for (int i = 0; i < n_edge; i++) {
        code = l_byte_increment(code, at.rest, l_byte_lookup((const uint8_t *)t->byte.edge[i], n_cell, at.cell));
    }
    const lanes_int index = l_int_from_bytes(code);
    if (n_code == 64) return (nearest_code){l_iq6_value(l_from_int(index)), index};
    return (nearest_code){l_from_int(l_int_from_bytes(l_byte_lookup((const uint8_t *)t->byte.value, n_code, code))),
                          index};
}
#else
IQ_INLINE nearest_code nearest_in_cells(const iq_book_table *t, int n_cell, int n_code, int n_edge, lanes u) {
    const lanes inside = l_min(l_max(u, l_set(0.0f)), l_set((float)(n_cell - 1)));
    lanes_int index = l_int_lookup(t->base, n_cell, l_truncate(inside));
    for (int i = 0; i < n_edge; i++) index = l_increment(index, l_at_least(u, l_lookup(t->edge, n_code, index)));
    return (nearest_code){l_lookup(t->value, n_code, index), index};
}
#endif

IQ_INLINE nearest_code nearest_of_4(const iq_book_table *t, lanes u) {
    const lanes_mask m0 = l_greater(u, l_set(t->edge[0])), m1 = l_greater(u, l_set(t->edge[1])),
                     m2 = l_greater(u, l_set(t->edge[2]));
    nearest_code r;
    r.value = l_select(m1, l_select(m2, l_set(t->value[3]), l_set(t->value[2])),
                       l_select(m0, l_set(t->value[1]), l_set(t->value[0])));
    r.index = l_increment(l_increment(l_increment(l_int_zero(), m0), m1), m2);
    return r;
}

IQ_INLINE nearest_code nearest_integer(const iq_book *book, lanes u) {
    nearest_code r;
    r.value = l_round(l_min(l_max(u, l_set(book->lowest)), l_set(book->highest)));
    r.index = l_truncate(l_sub(r.value, l_set(book->lowest)));
    return r;
}

/* The nearest single code; `kind` is a constant where this is inlined. */
IQ_INLINE nearest_code nearest(const iq_book *book, iq_book_kind kind, lanes u) {
    switch (kind) {
    case IQ_BOOK_4: return nearest_of_4(book->table, u);
    case IQ_BOOK_8: return nearest_in_cells(book->table, 16, 8, 1, u);
    case IQ_BOOK_16: return nearest_in_cells(book->table, 32, 16, 1, u);
    case IQ_BOOK_32: return nearest_in_cells(book->table, 32, 32, 2, u);
    case IQ_BOOK_64: return nearest_in_cells(book->table, 64, 64, 2, u);
    default: return nearest_integer(book, u);
    }
}
