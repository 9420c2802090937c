/* Sixteen floats side by side, one per sub-block, in the compiler's own vectors: SSE2 on x86-64, NEON on aarch64.
 * Every word does the same IEEE operation in each lane on every instruction set, which is why all of them find the
 * same codes. */
#ifndef IQ_QUANTIZE_LANES_PORTABLE_H
#define IQ_QUANTIZE_LANES_PORTABLE_H

#define L_QUARTERS 4

typedef float l_quarter __attribute__((vector_size(16)));
typedef int32_t l_quarter_int __attribute__((vector_size(16)));
typedef struct {
    l_quarter q[L_QUARTERS];
} lanes;
typedef struct {
    l_quarter_int q[L_QUARTERS];
} lanes_int;
typedef lanes_int lanes_mask; /* all bits of a lane set or clear */

#define L_EACH(type, expression)                                                                                       \
    type r;                                                                                                            \
    for (int i = 0; i < L_QUARTERS; i++) r.q[i] = (expression);                                                        \
    return r

IQ_INLINE lanes l_load(const float *p) {
    lanes r;
    memcpy(&r, p, sizeof r);
    return r;
}
IQ_INLINE void l_store(float *p, lanes x) { memcpy(p, &x, sizeof x); }
IQ_INLINE lanes l_set(float x) { L_EACH(lanes, ((l_quarter){x, x, x, x})); }
IQ_INLINE lanes l_add(lanes x, lanes y) { L_EACH(lanes, x.q[i] + y.q[i]); }
IQ_INLINE lanes l_sub(lanes x, lanes y) { L_EACH(lanes, x.q[i] - y.q[i]); }
IQ_INLINE lanes l_mul(lanes x, lanes y) { L_EACH(lanes, x.q[i] * y.q[i]); }
IQ_INLINE lanes l_div(lanes x, lanes y) { L_EACH(lanes, x.q[i] / y.q[i]); }
IQ_INLINE lanes_mask l_greater(lanes x, lanes y) { L_EACH(lanes_mask, x.q[i] > y.q[i]); }
IQ_INLINE lanes_mask l_at_least(lanes x, lanes y) { L_EACH(lanes_mask, x.q[i] >= y.q[i]); }
IQ_INLINE lanes_int l_int_select(lanes_mask m, lanes_int yes, lanes_int no) {
    L_EACH(lanes_int, (yes.q[i] & m.q[i]) | (no.q[i] & ~m.q[i]));
}
IQ_INLINE lanes l_select(lanes_mask m, lanes yes, lanes no) {
    L_EACH(lanes, (l_quarter)(((l_quarter_int)yes.q[i] & m.q[i]) | ((l_quarter_int)no.q[i] & ~m.q[i])));
}
IQ_INLINE lanes_mask l_xor(lanes_mask x, lanes_mask y) { L_EACH(lanes_mask, x.q[i] ^ y.q[i]); }
IQ_INLINE lanes_mask l_andnot(lanes_mask x, lanes_mask y) { L_EACH(lanes_mask, x.q[i] & ~y.q[i]); }
IQ_INLINE lanes l_min(lanes x, lanes y) { return l_select(l_greater(y, x), x, y); }
IQ_INLINE lanes l_max(lanes x, lanes y) { return l_select(l_greater(x, y), x, y); }

/* Every instruction set adds halves, then quarters, eighths, pairs. */
IQ_INLINE float l_sum(lanes x) {
    const l_quarter quarter = (x.q[0] + x.q[2]) + (x.q[1] + x.q[3]);
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

/* Nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction. */
IQ_INLINE lanes l_round(lanes x) {
    const lanes big = l_set(12582912.0f);
    return l_sub(l_add(x, big), big);
}

IQ_INLINE lanes_int l_int_set(int x) { L_EACH(lanes_int, ((l_quarter_int){x, x, x, x})); }
IQ_INLINE lanes_int l_int_zero(void) { return l_int_set(0); }
IQ_INLINE lanes_int l_truncate(lanes x) {
    L_EACH(lanes_int, ((l_quarter_int){(int)x.q[i][0], (int)x.q[i][1], (int)x.q[i][2], (int)x.q[i][3]}));
}
IQ_INLINE lanes_int l_increment(lanes_int x, lanes_mask m) { L_EACH(lanes_int, x.q[i] - m.q[i]); }
IQ_INLINE void l_store_bytes(uint8_t *p, lanes_int x) {
    for (int i = 0; i < 16; i++) p[i] = (uint8_t)x.q[i / 4][i % 4];
}

/* table[index], index below n. */
IQ_INLINE lanes l_lookup(const float *table, int n, lanes_int k) {
    (void)n;
    L_EACH(lanes, ((l_quarter){table[k.q[i][0]], table[k.q[i][1]], table[k.q[i][2]], table[k.q[i][3]]}));
}
IQ_INLINE lanes_int l_int_lookup(const int32_t *table, int n, lanes_int k) {
    (void)n;
    L_EACH(lanes_int, ((l_quarter_int){table[k.q[i][0]], table[k.q[i][1]], table[k.q[i][2]], table[k.q[i][3]]}));
}

#endif
