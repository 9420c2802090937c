/* Sixteen floats side by side, one per sub-block: AVX-512 (F, DQ, BW, VL). The same words as lanes_portable.h. */
#ifndef IQ_QUANTIZE_LANES_AVX512_H
#define IQ_QUANTIZE_LANES_AVX512_H

typedef __m512 lanes;
typedef __m512i lanes_int;
typedef __mmask16 lanes_mask;

IQ_INLINE lanes l_load(const float *p) { return _mm512_load_ps(p); }
IQ_INLINE void l_store(float *p, lanes a) { _mm512_store_ps(p, a); }
IQ_INLINE lanes l_set(float a) { return _mm512_set1_ps(a); }
IQ_INLINE lanes l_add(lanes a, lanes b) { return _mm512_add_ps(a, b); }
IQ_INLINE lanes l_sub(lanes a, lanes b) { return _mm512_sub_ps(a, b); }
IQ_INLINE lanes l_mul(lanes a, lanes b) { return _mm512_mul_ps(a, b); }
IQ_INLINE lanes l_div(lanes a, lanes b) { return _mm512_div_ps(a, b); }
IQ_INLINE lanes l_min(lanes a, lanes b) { return _mm512_min_ps(a, b); }
IQ_INLINE lanes l_max(lanes a, lanes b) { return _mm512_max_ps(a, b); }
IQ_INLINE lanes l_round(lanes a) { return _mm512_roundscale_ps(a, 8); }
IQ_INLINE lanes_mask l_greater(lanes a, lanes b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
IQ_INLINE lanes_mask l_at_least(lanes a, lanes b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
IQ_INLINE lanes l_select(lanes_mask m, lanes yes, lanes no) { return _mm512_mask_blend_ps(m, no, yes); }
IQ_INLINE lanes_mask l_xor(lanes_mask a, lanes_mask b) { return (lanes_mask)(a ^ b); }
IQ_INLINE lanes_mask l_andnot(lanes_mask a, lanes_mask b) { return (lanes_mask)(a & ~b); }

/* Every instruction set adds halves, then quarters, eighths, pairs. */
IQ_INLINE float l_sum(lanes a) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 eighth = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(eighth, _mm_movehdup_ps(eighth)));
}

IQ_INLINE lanes_int l_int_zero(void) { return _mm512_setzero_si512(); }
IQ_INLINE lanes_int l_int_set(int a) { return _mm512_set1_epi32(a); }
IQ_INLINE lanes_int l_truncate(lanes a) { return _mm512_cvttps_epi32(a); }
IQ_INLINE lanes_int l_increment(lanes_int a, lanes_mask m) {
    return _mm512_mask_sub_epi32(a, m, a, _mm512_set1_epi32(-1));
}
IQ_INLINE lanes_int l_int_select(lanes_mask m, lanes_int yes, lanes_int no) {
    return _mm512_mask_blend_epi32(m, no, yes);
}
IQ_INLINE void l_store_bytes(uint8_t *p, lanes_int a) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a)); }

/* table[index], index below n (a constant: 8, 16, 32 or 64). */
IQ_INLINE lanes l_lookup(const float *table, int n, lanes_int index) {
    const lanes low = _mm512_load_ps(table);
    if (n <= 16) return _mm512_permutexvar_ps(index, low);
    const lanes first = _mm512_permutex2var_ps(low, index, _mm512_load_ps(table + 16));
    if (n <= 32) return first;
    const lanes second = _mm512_permutex2var_ps(_mm512_load_ps(table + 32), index, _mm512_load_ps(table + 48));
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(index, _mm512_set1_epi32(32)), first, second);
}

IQ_INLINE lanes_int l_int_lookup(const int32_t *table, int n, lanes_int index) {
    return _mm512_castps_si512(l_lookup((const float *)(const void *)table, n, index));
}

#endif
