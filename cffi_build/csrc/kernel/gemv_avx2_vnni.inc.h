/* One superblock of gemv_avx2_shape.inc.h with AVX-VNNI: vpdpbusd adds up four products exactly, over both vectors of a
 * pair, and each such sum is scaled as a float: by d of the activations times the sub-block's scale. Codes that are mixed
 * have two scales per pair and no signs to care for: there vpmaddubsw and scales in integers are as fast or faster. */

/* The lower 64 bits of either half in x, the upper in y: the first two dwords of a half are sums over the first
 * sub-block, the others over the second. */
IQ_INLINE code_pair mix_dwords(code_pair p) {
    return (code_pair){_mm256_unpacklo_epi64(p.x, p.y), _mm256_unpackhi_epi64(p.x, p.y)};
}

/* A superblock of activations in the order of the vectors */
typedef struct {
    __m256i q[8];
    __m256i start[4]; /* CODES_SIGNED: where the sums of a pair begin, which takes LANE_BIAS back */
    __m256i sums;     /* int16: of each 16 q, times int_unpacker.shift */
    __m256 d, pair_d[4];
} gemv_x;

IQ_INLINE void gemv_pack_x(const iq_q8_block *b, iq_slot_order order, const int_unpacker g, gemv_x *out) {
    uint8_t slot[IQ_SLOTS];
    vector_slots(order, g.order, slot);
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i dots[8];
    for (int i = 0; i < 8; i++) {
        out->q[i] = load16_pair(b->q + 16 * slot[i], b->q + 16 * slot[8 + i]);
        dots[i] = dot_u7(ones, out->q[i]);
    }
    out->sums = _mm256_mullo_epi16(sums16(dots), _mm256_set1_epi16((short)g.shift));
    for (int i = 0; i < 4; i++) {
        const code_pair apart = {out->q[2 * i], out->q[2 * i + 1]};
        const code_pair q = g.wide ? apart : g.mixed ? mix(apart, true) : mix_dwords(apart);
        out->q[2 * i] = q.x, out->q[2 * i + 1] = q.y;
        const __m256i sum = add_dot4(dot_u7(ones, q.x), ones, q.y);
        out->start[i] = _mm256_mullo_epi32(sum, _mm256_set1_epi32(-LANE_BIAS));
    }
    pack_d(b, slot, &out->d, out->pair_d);
}

/* Scales of the sub-blocks, of the first of each pair and of the second */
typedef struct {
    __m256 first, second;
} pair_scales;

IQ_INLINE pair_scales scales_of_pairs(const int_unpacker g, __m256i words) {
    const __m256 second = _mm256_cvtepi32_ps(_mm256_srai_epi32(words, 16));
    if (g.wide) return (pair_scales){second, second};
    return (pair_scales){_mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(words, 16), 16)), second};
}
/* Those of pair b, twice each in either half */
#define OF_PAIR(s, b)                                                                                                  \
    ((b) == 0   ? _mm256_shuffle_ps((s).first, (s).second, 0x00)                                                       \
     : (b) == 1 ? _mm256_shuffle_ps((s).first, (s).second, 0x55)                                                       \
     : (b) == 2 ? _mm256_shuffle_ps((s).first, (s).second, 0xaa)                                                       \
                : _mm256_shuffle_ps((s).first, (s).second, 0xff))

/* Dwords that add up to code * q over pair b */
IQ_INLINE __m256i pair_dots(const int_unpacker g, code_pair codes, const gemv_x *x, int b) {
    const __m256i start = g.kind == CODES_SIGNED ? x->start[b] : _mm256_setzero_si256();
    return add_dot4(add_dot4(start, codes.x, x->q[2 * b]), codes.y, x->q[2 * b + 1]);
}
/* Of mixed codes: to scale * code * q */
IQ_INLINE __m256i mixed_sums(const int_unpacker g, code_pair codes, const gemv_x *x, __m256i scale, int b) {
    const __m256i px = _mm256_maddubs_epi16(codes.x, x->q[2 * b]), py = _mm256_maddubs_epi16(codes.y, x->q[2 * b + 1]);
    const __m256i s = SPREAD(scale, b);
    if (g.kind == CODES_U6) return _mm256_madd_epi16(_mm256_add_epi16(px, py), s);
    return add_dot2(_mm256_madd_epi16(px, s), py, s);
}

/* One superblock of a row times n_tokens tokens */
IQ_INLINE void gemv_ints_superblock(const unpacker f, const int_unpacker g, const uint8_t *block, const gemv_x *x,
                                    size_t x_stride, int n_tokens, __m256 *sums) {
    const int_scales s = g.scales(block);
    const pair_scales of_rows = scales_of_pairs(g, s.scale);
    __m256 part[GEMV_TOKENS];
    pair_scales scales[GEMV_TOKENS];
    for (int t = 0; t < n_tokens; t++) {
        const gemv_x *xt = x + (size_t)t * x_stride;
        const __m256 constant = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(s.offset, xt->sums)), xt->d);
        part[t] = f.has_min ? _mm256_setzero_ps() : constant;
        if (f.has_min) sums[t] = _mm256_fnmadd_ps(s.dmin, constant, sums[t]);
        scales[t].second = _mm256_mul_ps(of_rows.second, xt->d);
        scales[t].first = g.wide ? scales[t].second : _mm256_mul_ps(of_rows.first, xt->d);
    }
    for (int b = 0; b < 4; b++) {
        const code_pair plain = g.codes(block, b), codes = g.wide || g.mixed ? plain : mix_dwords(plain);
        for (int t = 0; t < n_tokens; t++) {
            const gemv_x *xt = x + (size_t)t * x_stride;
            const __m256i dots = g.mixed ? mixed_sums(g, codes, xt, s.scale, b) : pair_dots(g, codes, xt, b);
            const __m256 scale = g.mixed ? xt->pair_d[b] : OF_PAIR(scales[t], b);
            part[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), scale, part[t]);
        }
    }
    for (int t = 0; t < n_tokens; t++) {
        sums[t] = f.row_meta_bytes ? _mm256_add_ps(sums[t], part[t]) : _mm256_fmadd_ps(s.d, part[t], sums[t]);
    }
}
