/* Sixteen floats side by side, one per sub-block: AVX2. The same words as lanes_portable.h. */
#ifndef IQ_QUANTIZE_LANES_AVX2_H
#define IQ_QUANTIZE_LANES_AVX2_H

typedef struct {
    __m256 a, b;
} lanes;
typedef struct {
    __m256i a, b;
} lanes_int;
typedef lanes lanes_mask; /* all bits of a lane set or clear */

IQ_INLINE lanes l_load(const float *p) { return (lanes){_mm256_load_ps(p), _mm256_load_ps(p + 8)}; }
IQ_INLINE void l_store(float *p, lanes x) {
    _mm256_store_ps(p, x.a);
    _mm256_store_ps(p + 8, x.b);
}
IQ_INLINE lanes l_set(float x) { return (lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
IQ_INLINE lanes l_add(lanes x, lanes y) { return (lanes){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
IQ_INLINE lanes l_sub(lanes x, lanes y) { return (lanes){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
IQ_INLINE lanes l_mul(lanes x, lanes y) { return (lanes){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
IQ_INLINE lanes l_div(lanes x, lanes y) { return (lanes){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
IQ_INLINE lanes l_min(lanes x, lanes y) { return (lanes){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
IQ_INLINE lanes l_max(lanes x, lanes y) { return (lanes){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
IQ_INLINE lanes l_round(lanes x) { return (lanes){_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)}; }
IQ_INLINE lanes_mask l_greater(lanes x, lanes y) {
    return (lanes){_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)};
}
IQ_INLINE lanes l_select(lanes_mask m, lanes yes, lanes no) {
    return (lanes){_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
IQ_INLINE lanes_mask l_xor(lanes_mask x, lanes_mask y) {
    return (lanes){_mm256_xor_ps(x.a, y.a), _mm256_xor_ps(x.b, y.b)};
}
IQ_INLINE lanes_mask l_andnot(lanes_mask x, lanes_mask y) {
    return (lanes){_mm256_andnot_ps(y.a, x.a), _mm256_andnot_ps(y.b, x.b)};
}

IQ_INLINE lanes_int l_int_zero(void) { return (lanes_int){_mm256_setzero_si256(), _mm256_setzero_si256()}; }
IQ_INLINE lanes_int l_int_set(int x) { return (lanes_int){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
IQ_INLINE lanes_int l_truncate(lanes x) { return (lanes_int){_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b)}; }
IQ_INLINE lanes_int l_increment(lanes_int x, lanes_mask m) {
    return (lanes_int){_mm256_sub_epi32(x.a, _mm256_castps_si256(m.a)),
                       _mm256_sub_epi32(x.b, _mm256_castps_si256(m.b))};
}
IQ_INLINE lanes_int l_int_select(lanes_mask m, lanes_int yes, lanes_int no) {
    return (lanes_int){_mm256_blendv_epi8(no.a, yes.a, _mm256_castps_si256(m.a)),
                       _mm256_blendv_epi8(no.b, yes.b, _mm256_castps_si256(m.b))};
}
IQ_INLINE void l_store_bytes(uint8_t *p, lanes_int x) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

/* table[index] by one permute per 8 entries, then blends on the index bits above. Gathers are slower on many CPUs, and
 * much slower with the mitigations of 2023. */
IQ_INLINE __m256 lookup_8(const float *table, __m256i index) {
    return _mm256_permutevar8x32_ps(_mm256_load_ps(table), index);
}
IQ_INLINE __m256 lookup_16(const float *table, __m256i index) {
    const __m256 bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(lookup_8(table, index), lookup_8(table + 8, index), bit3);
}
IQ_INLINE __m256 lookup_32(const float *table, __m256i index) {
    const __m256 bit4 = _mm256_castsi256_ps(_mm256_slli_epi32(index, 27));
    return _mm256_blendv_ps(lookup_16(table, index), lookup_16(table + 16, index), bit4);
}
IQ_INLINE __m256 lookup_64(const float *table, __m256i index) {
    const __m256 bit5 = _mm256_castsi256_ps(_mm256_slli_epi32(index, 26));
    return _mm256_blendv_ps(lookup_32(table, index), lookup_32(table + 32, index), bit5);
}

/* table[index], index below n (a constant: 8, 16, 32 or 64). */
IQ_INLINE __m256 lookup_half(const float *table, int n, __m256i index) {
    return n <= 8    ? lookup_8(table, index)
           : n <= 16 ? lookup_16(table, index)
           : n <= 32 ? lookup_32(table, index)
                     : lookup_64(table, index);
}

IQ_INLINE lanes l_lookup(const float *table, int n, lanes_int index) {
    return (lanes){lookup_half(table, n, index.a), lookup_half(table, n, index.b)};
}

IQ_INLINE lanes_int l_int_lookup(const int32_t *table, int n, lanes_int index) {
    const lanes x = l_lookup((const float *)(const void *)table, n, index);
    return (lanes_int){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}

#endif
