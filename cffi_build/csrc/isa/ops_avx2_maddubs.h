/* What multiplies on AVX2: part of ops_avx2.h.
 *
 * vpmaddubsw adds two products in int16 and saturates; it multiplies unsigned with signed bytes:
 *   codes 0..127 are the unsigned side: 2 * 127 * 128 fits;
 *   signed codes -127..127 lend their sign to the activations' copy: |q| is the unsigned side (128 for -128, which
 *   abs leaves as 0x80), the code with q's sign the signed one: 2 * 128 * 127 fits;
 *   codes of the full int8 range (Q8_0) are widened to int16 instead. */
#ifndef IQ_ISA_OPS_AVX2_MADDUBS_H
#define IQ_ISA_OPS_AVX2_MADDUBS_H

IQ_INLINE __m256i dot_u7(__m256i codes, __m256i q) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, q), _mm256_set1_epi16(1));
}
IQ_INLINE __m256i dot_s8(__m256i codes, __m256i q) { return dot_u7(_mm256_abs_epi8(q), _mm256_sign_epi8(codes, q)); }
IQ_INLINE __m256i dot_i8(__m256i codes, __m256i q) {
    /* bytes 0..7 and 8..15 of each 128 bits as int16, so that the sums stay within slots */
    const __m256i zero = _mm256_setzero_si256();
    const __m256i cs = _mm256_cmpgt_epi8(zero, codes), qs = _mm256_cmpgt_epi8(zero, q);
    const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi8(codes, cs), _mm256_unpacklo_epi8(q, qs));
    return _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpackhi_epi8(codes, cs), _mm256_unpackhi_epi8(q, qs)));
}
IQ_INLINE dot64 v_dot_u7(lanes64 c, lanes64 q) { return (dot64){{dot_u7(c.v[0], q.v[0]), dot_u7(c.v[1], q.v[1])}}; }
IQ_INLINE dot64 v_dot_s8(lanes64 c, lanes64 q) { return (dot64){{dot_s8(c.v[0], q.v[0]), dot_s8(c.v[1], q.v[1])}}; }
IQ_INLINE dot64 v_dot_i8(lanes64 c, lanes64 q) { return (dot64){{dot_i8(c.v[0], q.v[0]), dot_i8(c.v[1], q.v[1])}}; }

/* ---- tiles of 16 rows (gemm) ------------------------------------------------------------------------------------ */

/* Codes and activations are widened to int16: vpmaddwd is exact for every pattern, and two of them with their additions
 * are as many instructions as the byte route with signs.
 * A unit is 16 rows x columns 0, 1, then 16 rows x columns 2, 3. */
#define TILE_UNIT 128
#define TILE_TOKENS 4
#define TILE_X_BYTES 2

typedef struct {
    __m256i v[4];
} tile_w;
typedef const int8_t *tile_x;

IQ_INLINE tile_w tile_load(const uint8_t *unit) {
    return (tile_w){{load32(unit), load32(unit + 32), load32(unit + 64), load32(unit + 96)}};
}
IQ_INLINE tile_x tile_load_x(const int8_t *q) { return q; }
IQ_INLINE i32x16 tile_init(const int32_t *bias) {
    (void)bias;
    return I32X16(_mm256_setzero_si256(), _mm256_setzero_si256());
}
/* acc[row] += 4 codes of the row times activations 4c .. 4c + 3 */
IQ_INLINE i32x16 tile_dot(i32x16 acc, tile_w w, tile_x x, int c) {
    for (int i = 0; i < 2; i++) {
        const __m256i q2 = _mm256_set1_epi32((int)iq_load_u32(x + 8 * c + 4 * i));
        acc.v[0] = _mm256_add_epi32(acc.v[0], _mm256_madd_epi16(w.v[2 * i], q2));
        acc.v[1] = _mm256_add_epi32(acc.v[1], _mm256_madd_epi16(w.v[2 * i + 1], q2));
        KEEP_ORDER(acc.v[0]);
        KEEP_ORDER(acc.v[1]);
    }
    return acc;
}
/* 16 activations as tile_dot reads them */
IQ_INLINE void tile_store_x(int8_t *out, const int8_t *q) {
    _mm256_storeu_si256((__m256i *)out, _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)q)));
}
/* 8 rows x 4 codes to a unit, from the first of these rows on */
IQ_INLINE void tile_store_group(uint8_t *unit, int first_row, __m256i codes) {
    const __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(codes));
    const __m256i high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(codes, 1));
    const __m256i a = _mm256_shuffle_epi32(low, 0xd8), b = _mm256_shuffle_epi32(high, 0xd8);
    const __m256i c01 = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(a, b), 0xd8);
    const __m256i c23 = _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(a, b), 0xd8);
    _mm256_store_si256((__m256i *)(unit + 4 * first_row), c01);
    _mm256_store_si256((__m256i *)(unit + 4 * first_row + 64), c23);
}

/* ---- q8_0 keys and values ---------------------------------------------------------------------------------------- */

#define KV_BIAS 0 /* what kv_load_k adds to the codes */

IQ_INLINE kv_codes kv_load_k(const uint8_t *p) { /* 16 positions x 4 columns */
    return (kv_codes){{load32(p), load32(p + 32)}};
}
/* acc[position] += 4 codes of the position times q[0 .. 3]; the codes lend their sign to q, as |code| may be 128 */
IQ_INLINE i32x16 kv_dot4(i32x16 acc, kv_codes k, const int8_t *q) {
    const __m256i q4 = _mm256_set1_epi32((int)iq_load_u32(q)), ones = _mm256_set1_epi16(1);
    for (int i = 0; i < 2; i++) {
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(k.v[i]), _mm256_sign_epi8(q4, k.v[i]));
        acc.v[i] = _mm256_add_epi32(acc.v[i], _mm256_madd_epi16(pairs, ones));
    }
    return acc;
}
/* acc[column] += the codes of two positions times w[0], w[1] */
IQ_INLINE i32x16 kv_dot2(i32x16 acc, kv_pairs v, const int16_t *w) {
    const __m256i w2 = _mm256_set1_epi32((int)iq_load_u32(w));
    for (int i = 0; i < 2; i++) acc.v[i] = _mm256_add_epi32(acc.v[i], _mm256_madd_epi16(v.v[i], w2));
    return acc;
}

#endif
