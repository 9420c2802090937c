/* One superblock of gemv_avx2_shape.inc.h by vpmaddubsw: a sub-block's scale is multiplied where the products are added
 * up, by vpmaddwd, and floats come in once per 32 columns. Of CODES_U6 the int16 sums of two products can be added to two
 * more. CODES_SIGNED take the sign of q and are multiplied with |q|: exact, since they are above -128. Both are made of q each
 * time: with |q| and a mask stored, the activations of 8192 columns would not stay in the first-level cache. */

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* A superblock of activations in the order of the vectors */
typedef struct {
    __m256i q[8];
    __m256i sums;     /* int16: of each 16 q, times int_unpacker.shift */
    __m256 d;         /* scales of the 32-blocks in their order ... */
    __m256 pair_d[4]; /* ... and of each pair, one in either half */
} gemv_x;

IQ_INLINE void gemv_pack_x(const iq_q8_block *b, iq_slot_order order, const int_unpacker g, gemv_x *out) {
    uint8_t slot[IQ_SLOTS];
    vector_slots(order, g.order, slot);
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i dots[8];
    for (int i = 0; i < 8; i++) {
        const __m256i q = load16_pair(b->q + 16 * slot[i], b->q + 16 * slot[8 + i]);
        out->q[i] = q;
        dots[i] = dot_u7(ones, q);
    }
    for (int i = 0; i < 8; i += 2) {
        const code_pair q = mix((code_pair){out->q[i], out->q[i + 1]}, g.mixed);
        out->q[i] = q.x, out->q[i + 1] = q.y;
    }
    out->sums = _mm256_mullo_epi16(sums16(dots), _mm256_set1_epi16((short)g.shift));
    pack_d(b, slot, &out->d, out->pair_d);
}

/* ---- one superblock ---------------------------------------------------------------------------------------------- */

/* Word i of either half, everywhere in it */
IQ_INLINE __m256i spread_word(__m256i a, int i) {
    return _mm256_shuffle_epi8(a, _mm256_set1_epi16((short)(0x0100 + 0x0202 * i)));
}

IQ_INLINE __m256i gemv_products(code_kind kind, __m256i codes, const gemv_x *x, int i) {
    if (kind != CODES_SIGNED) return _mm256_maddubs_epi16(codes, x->q[i]);
    return _mm256_maddubs_epi16(_mm256_abs_epi8(x->q[i]), _mm256_sign_epi8(codes, x->q[i]));
}

/* Dwords that add up to scale * code * q over pair b; each below 2^24 in size. */
IQ_INLINE __m256i pair_sums(const int_unpacker f, code_pair codes, const gemv_x *x, __m256i scale, int b) {
    const __m256i px = gemv_products(f.kind, codes.x, x, 2 * b), py = gemv_products(f.kind, codes.y, x, 2 * b + 1);
    const bool one = f.wide || f.mixed; /* words of s: x, y, x, y ... */
    const __m256i s = one ? SPREAD(scale, b) : spread_word(scale, 2 * b);
    if (one && f.kind == CODES_U6) return _mm256_madd_epi16(_mm256_add_epi16(px, py), s);
    const __m256i sy = one ? s : spread_word(scale, 2 * b + 1);
    return _mm256_add_epi32(_mm256_madd_epi16(px, s), _mm256_madd_epi16(py, sy));
}

/* The sums over constants */
IQ_INLINE __m256 constant_sums(int_scales s, const gemv_x *x) {
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(s.offset, x->sums));
}

/* One superblock of a row times n_tokens tokens */
IQ_INLINE void gemv_ints_superblock(const unpacker f, const int_unpacker g, const uint8_t *block, const gemv_x *x,
                                    size_t x_stride, int n_tokens, __m256 *sums) {
    const int_scales s = g.scales(block);
    __m256 part[GEMV_TOKENS];
    for (int t = 0; t < n_tokens; t++) part[t] = _mm256_setzero_ps();
    for (int b = 0; b < 4; b++) {
        const code_pair codes = g.codes(block, b);
        for (int t = 0; t < n_tokens; t++) {
            const gemv_x *xt = x + (size_t)t * x_stride;
            const __m256 dots = _mm256_cvtepi32_ps(pair_sums(g, codes, xt, s.scale, b));
            part[t] = _mm256_fmadd_ps(dots, xt->pair_d[b], part[t]);
        }
    }
    for (int t = 0; t < n_tokens; t++) {
        const gemv_x *xt = x + (size_t)t * x_stride;
        const __m256 constant = constant_sums(s, xt);
        if (f.has_min)
            sums[t] = _mm256_fnmadd_ps(s.dmin, _mm256_mul_ps(constant, xt->d), sums[t]);
        else
            part[t] = _mm256_fmadd_ps(constant, xt->d, part[t]);
        sums[t] = f.row_meta_bytes ? _mm256_add_ps(sums[t], part[t]) : _mm256_fmadd_ps(s.d, part[t], sums[t]);
    }
}
