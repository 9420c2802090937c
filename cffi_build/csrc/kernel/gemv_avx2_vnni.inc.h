/* One superblock of gemv_avx2_shape.inc.h by vpdpbusd: four products are added up exactly, over both vectors of a pair,
 * and each such sum is scaled as a float: by d of the activations times the sub-block's scale. */

/* The lower 64 bits of either half in x, the upper in y: the first two dwords of a half are sums over the first
 * sub-block, the others over the second. */
IQ_INLINE code_pair mix(code_pair p, bool mixed) {
    return mixed ? (code_pair){_mm256_unpacklo_epi64(p.x, p.y), _mm256_unpackhi_epi64(p.x, p.y)} : p;
}

/* A superblock of activations in the order of the vectors */
typedef struct {
    __m256i q[8];
    __m256i start[4]; /* CODES_SIGNED: where the sums of a pair begin, which takes LANE_BIAS back */
    __m256i sums;     /* int16: of each 16 q, times int_unpacker.shift */
    __m256 d;         /* scales of the 32-blocks: of the lower halves of all pairs, then of the upper */
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
        const code_pair q = mix((code_pair){out->q[2 * i], out->q[2 * i + 1]}, !g.wide);
        out->q[2 * i] = q.x, out->q[2 * i + 1] = q.y;
        const __m256i sum = add_dot4(dot_u7(ones, q.x), ones, q.y);
        out->start[i] = _mm256_mullo_epi32(sum, _mm256_set1_epi32(-LANE_BIAS));
    }
    float d[8];
    for (int i = 0; i < 8; i++) d[i] = b->d[IQ_SLOT_LANE(slot[2 * i])];
    out->d = _mm256_loadu_ps(d);
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
#define SPREAD(s, b)                                                                                                   \
    ((b) == 0   ? _mm256_shuffle_ps((s).first, (s).second, 0x00)                                                       \
     : (b) == 1 ? _mm256_shuffle_ps((s).first, (s).second, 0x55)                                                       \
     : (b) == 2 ? _mm256_shuffle_ps((s).first, (s).second, 0xaa)                                                       \
                : _mm256_shuffle_ps((s).first, (s).second, 0xff))

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
        const code_pair codes = mix(g.codes(block, b), !g.wide && !g.mixed);
        for (int t = 0; t < n_tokens; t++) {
            const gemv_x *xt = x + (size_t)t * x_stride;
            const __m256i start = g.kind == CODES_SIGNED ? xt->start[b] : _mm256_setzero_si256();
            const __m256i dots = add_dot4(add_dot4(start, codes.x, xt->q[2 * b]), codes.y, xt->q[2 * b + 1]);
            part[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), SPREAD(scales[t], b), part[t]);
        }
    }
    for (int t = 0; t < n_tokens; t++) {
        sums[t] = f.row_meta_bytes ? _mm256_add_ps(sums[t], part[t]) : _mm256_fmadd_ps(s.d, part[t], sums[t]);
    }
}
