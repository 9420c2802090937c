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

IQ_INLINE float l_sum(lanes x) {
    const __m256 half = _mm256_add_ps(x.a, x.b);
    const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    const __m128 eighth = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(eighth, _mm_movehdup_ps(eighth)));
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

/* table[index], index below n (a constant: 8 or 32), by one permute per 8 entries, then blends on the index bits above. */
IQ_INLINE __m256 lookup_8(const float *table, __m256i index) {
    return _mm256_permutevar8x32_ps(_mm256_load_ps(table), index);
}
IQ_INLINE __m256 lookup_16(const float *table, __m256i index) {
    const __m256 bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(lookup_8(table, index), lookup_8(table + 8, index), bit3);
}
IQ_INLINE __m256 lookup_half(const float *table, int n, __m256i index) {
    const __m256 bit4 = _mm256_castsi256_ps(_mm256_slli_epi32(index, 27));
    if (n <= 8) return lookup_8(table, index);
    return _mm256_blendv_ps(lookup_16(table, index), lookup_16(table + 16, index), bit4);
}
IQ_INLINE lanes l_lookup(const float *table, int n, lanes_int index) {
    return (lanes){lookup_half(table, n, index.a), lookup_half(table, n, index.b)};
}
IQ_INLINE lanes_int l_int_lookup(const int32_t *table, int n, lanes_int index) {
    const lanes x = l_lookup((const float *)(const void *)table, n, index);
    return (lanes_int){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}

/* ---- a byte per lane: one shuffle looks sixteen lanes up ---- */

#define L_BYTE_LOOKUPS

typedef __m128i lane_bytes;
typedef struct {
    lane_bytes cell, rest;
} lane_position;

/* x = 128 cell + rest, x below 128 * 128 */
IQ_INLINE lane_position l_split_7(lanes_int x) {
    const __m256i words = _mm256_packs_epi32(x.a, x.b), rest = _mm256_and_si256(words, _mm256_set1_epi16(127));
    const __m256i mixed = _mm256_packus_epi16(_mm256_srli_epi16(words, 7), rest);
    const __m256i both = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    return (lane_position){_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)};
}

/* table[index], index below n (a constant: 8, 16, 32 or 64) */
IQ_INLINE lane_bytes l_byte_lookup(const uint8_t *table, int n, lane_bytes index) {
    lane_bytes part[4];
    for (int i = 0; 16 * i < n; i++) {
        part[i] = _mm_shuffle_epi8(_mm_load_si128((const __m128i *)(const void *)(table + 16 * i)), index);
    }
    if (n <= 16) return part[0];
    const __m128i bit4 = _mm_slli_epi16(index, 3), first = _mm_blendv_epi8(part[0], part[1], bit4);
    if (n <= 32) return first;
    return _mm_blendv_epi8(first, _mm_blendv_epi8(part[2], part[3], bit4), _mm_slli_epi16(index, 2));
}
/* a + (x > y), signed */
IQ_INLINE lane_bytes l_byte_increment(lane_bytes a, lane_bytes x, lane_bytes y) {
    return _mm_sub_epi8(a, _mm_cmpgt_epi8(x, y));
}
IQ_INLINE lanes_int l_int_from_bytes(lane_bytes x) {
    return (lanes_int){_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(x, x))};
}
IQ_INLINE lanes l_from_int(lanes_int x) { return (lanes){_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }

IQ_INLINE __m256 iq6_values_of(__m256 q) {
    __m256 y = _mm256_set1_ps(IQ6_CUBIC[0]);
    for (int i = 1; i < 4; i++) y = _mm256_fmadd_ps(q, y, _mm256_set1_ps(IQ6_CUBIC[i]));
    return y;
}
IQ_INLINE lanes l_iq6_value(lanes q) { return (lanes){iq6_values_of(q.a), iq6_values_of(q.b)}; }

#endif
