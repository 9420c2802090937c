/* The vocabulary on AVX2 (with FMA and F16C): two registers hold 64 codes, or one float per slot. What multiplies stands
 * in ops_avx2_maddubs.h or, where IQ_AVX_VNNI is defined, in ops_avx2_vnni.h.
 * Included by kernel_avx2.c and kernel_avxvnni.c inside their target regions, after <immintrin.h>. */
#ifndef IQ_ISA_OPS_AVX2_H
#define IQ_ISA_OPS_AVX2_H

#if defined(IQ_AVX_VNNI)
#define LANE_BIAS 128 /* what v_lut*_s8 and v_signed add to a signed code */
#else
#define LANE_BIAS 0
#endif
#define TILE_BIAS LANE_BIAS /* what the codes of a gemm tile carry */

/* ---- 16 floats ------------------------------------------------------------------------------------------------ */

typedef struct {
    __m256 v[2];
} f32x16;

#define F32X16(low, high) ((f32x16){{(low), (high)}})
#define F32X16_MAP2(f, a, b) F32X16(f((a).v[0], (b).v[0]), f((a).v[1], (b).v[1]))

IQ_INLINE f32x16 f32x16_load(const float *p) { return F32X16(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
IQ_INLINE void f32x16_store(float *p, f32x16 a) { _mm256_storeu_ps(p, a.v[0]), _mm256_storeu_ps(p + 8, a.v[1]); }
IQ_INLINE __m256i first_lanes(size_t n) { /* n <= 8 */
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), index);
}
IQ_INLINE f32x16 f32x16_load_n(const float *p, size_t n) {
    const __m256 low = _mm256_maskload_ps(p, first_lanes(n < 8 ? n : 8));
    return F32X16(low, n > 8 ? _mm256_maskload_ps(p + 8, first_lanes(n - 8)) : _mm256_setzero_ps());
}
IQ_INLINE void f32x16_store_n(float *p, f32x16 a, size_t n) {
    _mm256_maskstore_ps(p, first_lanes(n < 8 ? n : 8), a.v[0]);
    if (n > 8) _mm256_maskstore_ps(p + 8, first_lanes(n - 8), a.v[1]);
}
IQ_INLINE f32x16 f32x16_set1(float a) { return F32X16(_mm256_set1_ps(a), _mm256_set1_ps(a)); }
IQ_INLINE f32x16 f32x16_zero(void) { return F32X16(_mm256_setzero_ps(), _mm256_setzero_ps()); }
IQ_INLINE f32x16 f32x16_add(f32x16 a, f32x16 b) { return F32X16_MAP2(_mm256_add_ps, a, b); }
IQ_INLINE f32x16 f32x16_sub(f32x16 a, f32x16 b) { return F32X16_MAP2(_mm256_sub_ps, a, b); }
IQ_INLINE f32x16 f32x16_mul(f32x16 a, f32x16 b) { return F32X16_MAP2(_mm256_mul_ps, a, b); }
IQ_INLINE f32x16 f32x16_div(f32x16 a, f32x16 b) { return F32X16_MAP2(_mm256_div_ps, a, b); }
IQ_INLINE f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c) { /* a * b + c */
    return F32X16(_mm256_fmadd_ps(a.v[0], b.v[0], c.v[0]), _mm256_fmadd_ps(a.v[1], b.v[1], c.v[1]));
}
/* A NaN in b is returned; a NaN in a gives b. */
IQ_INLINE f32x16 f32x16_max(f32x16 a, f32x16 b) { return F32X16_MAP2(_mm256_max_ps, a, b); }
IQ_INLINE f32x16 f32x16_min(f32x16 a, f32x16 b) { return F32X16_MAP2(_mm256_min_ps, a, b); }
/* a > b ? x : y; with a NaN: y */
IQ_INLINE f32x16 f32x16_select_gt(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
    return F32X16(_mm256_blendv_ps(y.v[0], x.v[0], _mm256_cmp_ps(a.v[0], b.v[0], _CMP_GT_OQ)),
                  _mm256_blendv_ps(y.v[1], x.v[1], _mm256_cmp_ps(a.v[1], b.v[1], _CMP_GT_OQ)));
}
IQ_INLINE float f32x16_reduce_add(f32x16 a) {
    const __m256 x = _mm256_add_ps(a.v[0], a.v[1]);
    const __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 z = _mm_add_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_add_ss(z, _mm_movehdup_ps(z)));
}
/* Lane r = the sum (or maximum) of rows[r], n of them (4 or 16; of 4, the other lanes repeat them): a transposition
 * that adds up on the way. */
#define FOLD_HALVES(op, row) op((row).v[0], (row).v[1])
#define FOLD_4(op, a, b, c, d, out)                                                                                    \
    do {                                                                                                               \
        const __m256 ab = op(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));                                      \
        const __m256 cd = op(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));                                      \
        (out) = op(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));                                  \
    } while (0)
#define FOLD_ROWS(op, rows, n)                                                                                         \
    __m256 q[4]; /* 4 rows in each 128 bits */                                                                         \
    for (int i = 0; i < 4; i++) {                                                                                      \
        const f32x16 *r = (rows) + ((n) == 16 ? 4 * i : 0);                                                            \
        const __m256 a = FOLD_HALVES(op, r[0]), b = FOLD_HALVES(op, r[1]);                                             \
        const __m256 c = FOLD_HALVES(op, r[2]), d = FOLD_HALVES(op, r[3]);                                             \
        FOLD_4(op, a, b, c, d, q[i]);                                                                                  \
    }                                                                                                                  \
    return F32X16(op(_mm256_permute2f128_ps(q[0], q[1], 0x20), _mm256_permute2f128_ps(q[0], q[1], 0x31)),              \
                  op(_mm256_permute2f128_ps(q[2], q[3], 0x20), _mm256_permute2f128_ps(q[2], q[3], 0x31)))
IQ_INLINE f32x16 f32x16_row_sums(const f32x16 *rows, const int n) { FOLD_ROWS(_mm256_add_ps, rows, n); }
IQ_INLINE f32x16 f32x16_row_maxima(const f32x16 *rows, const int n) { FOLD_ROWS(_mm256_max_ps, rows, n); }
IQ_INLINE float f32x16_reduce_max(f32x16 a) {
    const __m256 x = _mm256_max_ps(a.v[0], a.v[1]);
    const __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 z = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(z, _mm_movehdup_ps(z)));
}
IQ_INLINE f32x16 f32x16_load_f16(const void *p) {
    const __m128i *h = (const __m128i *)p;
    return F32X16(_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1)));
}
IQ_INLINE void f32x16_store_f16(void *p, f32x16 a) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.v[0], _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)p + 1, _mm256_cvtps_ph(a.v[1], _MM_FROUND_TO_NEAREST_INT));
}
IQ_INLINE f32x16 f32x16_splat_f16(const void *p) {
    return f32x16_set1(_mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(iq_load_u16(p)))));
}
/* Eight bytes at p must be readable. */
IQ_INLINE f32x16 f32x16_splat_first_f16(const void *p) { return f32x16_splat_f16(p); }
IQ_INLINE f32x16 f32x16_load_bf16(const void *p) {
    const __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    const __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p + 1));
    return F32X16(_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16)));
}
/* Nearest integer, ties to even; f32x16_scale2: a * 2^n for integral n, |n| <= 128, in two steps so that 2^128 and
 * subnormal results come out right. */
IQ_INLINE f32x16 f32x16_round(f32x16 a) {
    return F32X16(_mm256_round_ps(a.v[0], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                  _mm256_round_ps(a.v[1], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
IQ_INLINE __m256 scale2_half(__m256 a, __m256 n) {
    const __m256i k = _mm256_cvtps_epi32(n), first = _mm256_srai_epi32(k, 1), second = _mm256_sub_epi32(k, first);
    const __m256i one = _mm256_set1_epi32(0x3f800000);
    const __m256 x = _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_add_epi32(one, _mm256_slli_epi32(first, 23))));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_add_epi32(one, _mm256_slli_epi32(second, 23))));
}
IQ_INLINE f32x16 f32x16_scale2(f32x16 a, f32x16 n) { return F32X16_MAP2(scale2_half, a, n); }
/* a * 2^n for integral n in -126 .. 0 and a in 0.7 .. 1.5, or NaN; f32x16_abs: |a| */
IQ_INLINE __m256 raise2_half(__m256 a, __m256 n) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent));
}
IQ_INLINE f32x16 f32x16_raise2(f32x16 a, f32x16 n) { return F32X16_MAP2(raise2_half, a, n); }
IQ_INLINE f32x16 f32x16_abs(f32x16 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return F32X16(_mm256_andnot_ps(sign, a.v[0]), _mm256_andnot_ps(sign, a.v[1]));
}

/* ---- a register of floats: what sums of float weights are made of ----------------------------------------------- */

#define F32V 8

typedef __m256 f32v;

IQ_INLINE f32v f32v_zero(void) { return _mm256_setzero_ps(); }
IQ_INLINE f32v f32v_load(const void *p) { return _mm256_loadu_ps((const float *)p); }
IQ_INLINE f32v f32v_load_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
IQ_INLINE f32v f32v_load_bf16(const void *p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
IQ_INLINE f32v f32v_fma(f32v a, f32v b, f32v c) { return _mm256_fmadd_ps(a, b, c); } /* a * b + c */
IQ_INLINE float f32v_reduce_add(f32v a) {
    const __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 y = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}

/* ---- 16 int32 --------------------------------------------------------------------------------------------------- */

typedef struct {
    __m256i v[2];
} i32x16;

#define I32X16(low, high) ((i32x16){{(low), (high)}})

IQ_INLINE f32x16 i32x16_f32(i32x16 a) { return F32X16(_mm256_cvtepi32_ps(a.v[0]), _mm256_cvtepi32_ps(a.v[1])); }
IQ_INLINE i32x16 i32x16_abs_bits(f32x16 a) {
    const __m256i mask = _mm256_set1_epi32(0x7fffffff);
    return I32X16(_mm256_and_si256(_mm256_castps_si256(a.v[0]), mask),
                  _mm256_and_si256(_mm256_castps_si256(a.v[1]), mask));
}
IQ_INLINE uint32_t i32x16_reduce_max2(i32x16 a, i32x16 b) {
    const __m256i x = _mm256_max_epi32(_mm256_max_epi32(a.v[0], a.v[1]), _mm256_max_epi32(b.v[0], b.v[1]));
    const __m128i y = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    const __m128i z = _mm_max_epi32(y, _mm_shuffle_epi32(y, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(z, _mm_shuffle_epi32(z, 0xb1)));
}
/* round(a), ties to even, as int8; |a| < 128 */
IQ_INLINE void f32x16_store_i8(int8_t *p, f32x16 a) {
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a.v[0]), _mm256_cvtps_epi32(a.v[1]));
    const __m256i order = _mm256_permute4x64_epi64(words, 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(order), _mm256_extracti128_si256(order, 1));
    _mm_storeu_si128((__m128i *)p, bytes);
}

/* ---- 64 codes --------------------------------------------------------------------------------------------------- */

typedef struct {
    __m256i v[2];
} lanes64;

#define LANES64(low, high) ((lanes64){{(low), (high)}})
#define LANES64_MAP(f, a, ...) LANES64(f((a).v[0], __VA_ARGS__), f((a).v[1], __VA_ARGS__))
#define LANES64_MAP2(f, a, b) LANES64(f((a).v[0], (b).v[0]), f((a).v[1], (b).v[1]))

IQ_INLINE __m256i load32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
IQ_INLINE __m256i load16_pair(const void *a, const void *b) {
    const __m256i low = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)a));
    return _mm256_inserti128_si256(low, _mm_loadu_si128((const __m128i *)b), 1);
}
IQ_INLINE lanes64 v_load(const void *p) { return LANES64(load32(p), load32((const uint8_t *)p + 32)); }
/* 32 bytes twice, the second copy shifted right by n; bits n positions from each byte's top are undefined. */
IQ_INLINE lanes64 v_load32_twice(const void *p, int n) {
    const __m256i x = load32(p);
    return LANES64(x, _mm256_srli_epi16(x, n));
}
/* 16 bytes at p, p + stride, p + 2 stride, p + 3 stride */
IQ_INLINE lanes64 v_load16x4(const uint8_t *p, size_t stride) {
    return LANES64(load16_pair(p, p + stride), load16_pair(p + 2 * stride, p + 3 * stride));
}
/* 16 bytes four times, copy k shifted right by 2k; the upper bits of each byte are undefined. */
IQ_INLINE lanes64 v_load16_fan(const void *p) {
    const __m256i x = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
    const __m256i y = _mm256_blend_epi32(x, _mm256_srli_epi16(x, 2), 0xf0);
    return LANES64(y, _mm256_srli_epi16(y, 4));
}
/* 8 bytes at p, p + stride, ... twice each, the second copy shifted right by n; its upper bits are undefined. */
IQ_INLINE __m256i load8_twice_pair(const uint8_t *p, size_t stride, int n) {
    const __m128i a = _mm_loadl_epi64((const __m128i *)p), b = _mm_loadl_epi64((const __m128i *)(p + stride));
    const __m256i x = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
    return _mm256_unpacklo_epi64(x, _mm256_srli_epi16(x, n));
}
IQ_INLINE lanes64 v_load8x4_twice(const uint8_t *p, size_t stride, int n) {
    return LANES64(load8_twice_pair(p, stride, n), load8_twice_pair(p + 2 * stride, stride, n));
}
IQ_INLINE lanes64 v_load32x2(const uint8_t *a, const uint8_t *b) { return LANES64(load32(a), load32(b)); }
IQ_INLINE lanes64 v_set1(int value) { return LANES64(_mm256_set1_epi8((char)value), _mm256_set1_epi8((char)value)); }
IQ_INLINE lanes64 v_and(lanes64 a, int mask) { return LANES64_MAP(_mm256_and_si256, a, _mm256_set1_epi8((char)mask)); }
IQ_INLINE lanes64 v_or(lanes64 a, lanes64 b) { return LANES64_MAP2(_mm256_or_si256, a, b); }
IQ_INLINE lanes64 v_add(lanes64 a, lanes64 b) { return LANES64_MAP2(_mm256_add_epi8, a, b); }
/* Shifts within bytes; the n bits shifted in are undefined: mask them, or look up with a table that ignores them. */
IQ_INLINE lanes64 v_shr(lanes64 a, int n) { return n ? LANES64_MAP(_mm256_srli_epi16, a, n) : a; }
IQ_INLINE lanes64 v_shl(lanes64 a, int n) { return n ? LANES64_MAP(_mm256_slli_epi16, a, n) : a; }
IQ_INLINE lanes64 v_low4(lanes64 a) { return v_and(a, 15); }
IQ_INLINE lanes64 v_high4(lanes64 a) { return v_and(v_shr(a, 4), 15); }
/* As low4 and high4, but fit only as an index of a table: the other bits are undefined where that is cheaper. */
IQ_INLINE lanes64 v_index_low4(lanes64 a) { return v_low4(a); }
IQ_INLINE lanes64 v_index_high4(lanes64 a) { return v_high4(a); }
/* An index of n bits: those of mask from a, the others from b. */
IQ_INLINE lanes64 v_index(lanes64 a, int mask, lanes64 b, int n) {
    return v_or(v_and(a, mask), v_and(b, ((1 << n) - 1) & ~mask));
}
/* 16-bit words: bit 0 cleared, then t ^ t >> 1 (the code of IQ4_KSS). */
IQ_INLINE lanes64 v_gray16(lanes64 a) {
    const lanes64 t = LANES64_MAP(_mm256_and_si256, a, _mm256_set1_epi16((short)0xfffe));
    return LANES64(_mm256_xor_si256(t.v[0], _mm256_srli_epi16(t.v[0], 1)),
                   _mm256_xor_si256(t.v[1], _mm256_srli_epi16(t.v[1], 1)));
}
/* Bit 0 of each of the 64 16-bit words of 128 bytes. */
IQ_INLINE uint64_t low_bits_of_words(const uint8_t *p) {
    uint64_t bits = 0;
    for (int i = 0; i < 2; i++) {
        const __m256i a = _mm256_slli_epi16(load32(p + 64 * i), 15), b = _mm256_slli_epi16(load32(p + 64 * i + 32), 15);
        const __m256i signs = _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8);
        bits |= (uint64_t)(uint32_t)_mm256_movemask_epi8(signs) << 32 * i;
    }
    return bits;
}
/* 64 bits, one per lane in order: `value` where set, else 0. */
IQ_INLINE __m256i from_bits32(uint32_t bits, int value) {
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit), _mm256_set1_epi8((char)value));
}
IQ_INLINE lanes64 v_from_bits(uint64_t bits, int value) {
    return LANES64(from_bits32((uint32_t)bits, value), from_bits32((uint32_t)(bits >> 32), value));
}

/* Codebooks; u7: values 0..127, s8: signed values, plus LANE_BIAS. vpshufb looks up 16. */
IQ_INLINE __m256i biased(__m256i signed_bytes) {
    return LANE_BIAS ? _mm256_xor_si256(signed_bytes, _mm256_set1_epi8((char)LANE_BIAS)) : signed_bytes;
}
IQ_INLINE lanes64 v_signed(lanes64 a) { return LANES64(biased(a.v[0]), biased(a.v[1])); }
typedef __m256i lut16;
typedef struct {
    __m256i t[2];
} lut32;
typedef struct {
    __m256i t[4];
} lut64;

IQ_INLINE lut16 lut16_u7(const int8_t *t) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)t)); }
IQ_INLINE lut16 lut16_s8(const int8_t *t) { return biased(lut16_u7(t)); }
IQ_INLINE lut32 lut32_u7(const int8_t *t) { return (lut32){{lut16_u7(t), lut16_u7(t + 16)}}; }
IQ_INLINE lut32 lut32_s8(const int8_t *t) { return (lut32){{lut16_s8(t), lut16_s8(t + 16)}}; }
IQ_INLINE lut64 lut64_s8(const int8_t *t) {
    return (lut64){{lut16_s8(t), lut16_s8(t + 16), lut16_s8(t + 32), lut16_s8(t + 48)}};
}
IQ_INLINE __m256i lookup16(__m256i index, lut16 t) { return _mm256_shuffle_epi8(t, index); }
/* Bit `at` of `high`, moved to the sign, chooses between the halves; vpshufb itself ignores bits 4 to 6 of `low`. */
IQ_INLINE __m256i lookup32(__m256i low, __m256i high, int at, lut32 t) {
    return _mm256_blendv_epi8(lookup16(low, t.t[0]), lookup16(low, t.t[1]), _mm256_slli_epi16(high, 7 - at));
}
IQ_INLINE __m256i lookup64(__m256i low, __m256i high, int at, lut64 t) {
    const __m256i first = lookup32(low, high, at, (lut32){{t.t[0], t.t[1]}});
    const __m256i second = lookup32(low, high, at, (lut32){{t.t[2], t.t[3]}});
    return _mm256_blendv_epi8(first, second, _mm256_slli_epi16(high, 6 - at));
}
IQ_INLINE lanes64 v_lut16(lut16 t, lanes64 index) { return LANES64_MAP(lookup16, index, t); }
IQ_INLINE lanes64 v_lut32(lut32 t, lanes64 index) {
    return LANES64(lookup32(index.v[0], index.v[0], 4, t), lookup32(index.v[1], index.v[1], 4, t));
}
/* Through the nibbles `low` and one or two bits of `high` from bit `at` on, without making an index first. */
#define LUT_JOINED 1
IQ_INLINE lanes64 v_lut32_joined(lut32 t, lanes64 low, lanes64 high, int at) {
    return LANES64(lookup32(low.v[0], high.v[0], at, t), lookup32(low.v[1], high.v[1], at, t));
}
IQ_INLINE lanes64 v_lut64_joined(lut64 t, lanes64 low, lanes64 high, int at) {
    return LANES64(lookup64(low.v[0], high.v[0], at, t), lookup64(low.v[1], high.v[1], at, t));
}

/* ---- dot products ----------------------------------------------------------------------------------------------- */

/* The products of 64 codes with 64 activations, summed within slots as far as is free. */
typedef struct {
    __m256i v[2];
} dot64;

/* Integer additions may be reordered, and gcc does: all products first, then spills. This ends each step. */
#if defined(__GNUC__)
#define KEEP_ORDER(x) __asm__("" : "+x"(x))
#else
#define KEEP_ORDER(x) ((void)0)
#endif

/* Slot sums in lane order: v[h] of chunk j holds slots 4j + 2h and 4j + 2h + 1. */
IQ_INLINE i32x16 v_slot_sums(dot64 a, dot64 b, dot64 c, dot64 d) {
    i32x16 sums;
    for (int h = 0; h < 2; h++) {
        sums.v[h] = _mm256_hadd_epi32(_mm256_hadd_epi32(a.v[h], b.v[h]), _mm256_hadd_epi32(c.v[h], d.v[h]));
    }
    return sums;
}

/* ---- one small integer per slot --------------------------------------------------------------------------------- */

typedef __m128i slots; /* bytes in lane order; arithmetic modulo 256 */

IQ_INLINE __m128i lane_bytes(__m128i bytes, const uint8_t *index) {
    return _mm_shuffle_epi8(bytes, _mm_load_si128((const __m128i *)index));
}
IQ_INLINE __m128i nibbles_of(uint64_t word) { /* in natural order */
    const __m128i x = _mm_cvtsi64_si128((long long)word), mask = _mm_set1_epi8(15);
    return _mm_unpacklo_epi8(_mm_and_si128(x, mask), _mm_and_si128(_mm_srli_epi16(x, 4), mask));
}
IQ_INLINE slots slots_nibbles(uint64_t word, iq_slot_order order) {
    return lane_bytes(nibbles_of(word), lane_sub_block8[order]);
}
IQ_INLINE slots slots_crumbs(uint32_t word, iq_slot_order order) {
    return slots_nibbles(nibbles_of_crumbs(word), order);
}
IQ_INLINE slots slots_pair_bytes(uint64_t word, iq_slot_order order) {
    return lane_bytes(_mm_cvtsi64_si128((long long)word), lane_block8[order]);
}
IQ_INLINE slots slots_pair_nibbles(uint32_t word, iq_slot_order order) {
    return lane_bytes(nibbles_of(word), lane_block8[order]);
}
IQ_INLINE slots slots_pair_crumbs(uint32_t word, iq_slot_order order) {
    return lane_bytes(nibbles_of(nibbles_of_crumbs(word)), lane_block8[order]);
}
IQ_INLINE slots slots_bytes(const void *p, iq_slot_order order) {
    return lane_bytes(_mm_loadu_si128((const __m128i *)p), lane_sub_block8[order]);
}
IQ_INLINE slots slots_words(uint64_t low, uint64_t high, iq_slot_order order) { /* 16 bytes in natural order */
    return lane_bytes(_mm_set_epi64x((long long)high, (long long)low), lane_sub_block8[order]);
}
IQ_INLINE slots slots_and(slots a, int mask) { return _mm_and_si128(a, _mm_set1_epi8((char)mask)); }
IQ_INLINE slots slots_shr(slots a, int n) { return slots_and(_mm_srli_epi16(a, n), 255 >> n); } /* of values 0..255 */
IQ_INLINE slots slots_add(slots a, int b) { return _mm_add_epi8(a, _mm_set1_epi8((char)b)); }
IQ_INLINE slots slots_join(slots low, slots high, int shift) { /* low + (high << shift), no overlap */
    return _mm_or_si128(low, _mm_slli_epi16(high, shift));
}
IQ_INLINE f32x16 slots_f32(slots a) {
    return F32X16(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(a)),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(a, a))));
}
IQ_INLINE __m256 choose_half(uint32_t bits, const int32_t *lane_bit, __m256 a, __m256 b) {
    const __m256i bit = _mm256_load_si256((const __m256i *)lane_bit);
    const __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), bit), bit);
    return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(set));
}
IQ_INLINE f32x16 choose_bits(uint32_t bits, const int32_t *lane_bit, f32x16 a, f32x16 b) {
    return F32X16(choose_half(bits, lane_bit, a.v[0], b.v[0]), choose_half(bits, lane_bit + 8, a.v[1], b.v[1]));
}
/* b in the lanes whose bit of word is set, else a; bit first + n is that of sub-block (32-block) n */
IQ_INLINE f32x16 slots_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    return choose_bits(word >> first, lane_sub_block_bit[order], a, b);
}
IQ_INLINE f32x16 slots_pair_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    return choose_bits(word >> first, lane_block_bit[order], a, b);
}
IQ_INLINE f32x16 slots_odd_choose(slots s, f32x16 a, f32x16 b) {
    const __m128i odd = _mm_slli_epi16(s, 7); /* bit 0 at each byte's sign */
    const __m256 low = _mm256_castsi256_ps(_mm256_cvtepi8_epi32(odd));
    const __m256 high = _mm256_castsi256_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(odd, odd)));
    return F32X16(_mm256_blendv_ps(a.v[0], b.v[0], low), _mm256_blendv_ps(a.v[1], b.v[1], high));
}
/* Through a table of 16 values */
IQ_INLINE f32x16 slots_nibble_values(uint64_t word, iq_slot_order order, const nibble_values *values) {
    return slots_f32(_mm_shuffle_epi8(_mm_load_si128((const __m128i *)values->i8), slots_nibbles(word, order)));
}
/* nibble + 16 * crumb - 32: the nibbles of `crumbs` are looked up twice, for the crumb at their bits 0..1 and 2..3 */
IQ_INLINE f32x16 slots_6bit_values(uint64_t nibbles, uint32_t crumbs, iq_slot_order order) {
    const __m128i low_table = _mm_set1_epi32(0x1000f0e0);
    const __m128i high_table = _mm_setr_epi32((int)0xe0e0e0e0, (int)0xf0f0f0f0, 0x00000000, 0x10101010);
    const __m128i pairs = nibbles_of(crumbs);
    const __m128i high = _mm_unpacklo_epi8(_mm_shuffle_epi8(low_table, pairs), _mm_shuffle_epi8(high_table, pairs));
    return slots_f32(lane_bytes(_mm_add_epi8(nibbles_of(nibbles), high), lane_sub_block8[order]));
}
/* One fp16 per 32-block, `stride` bytes apart, to the lanes. */
IQ_INLINE __m256 gather8_f16(const uint8_t *p, size_t stride) {
    const __m128i h = _mm_setr_epi16((short)iq_load_u16(p), (short)iq_load_u16(p + stride),
                                     (short)iq_load_u16(p + 2 * stride), (short)iq_load_u16(p + 3 * stride),
                                     (short)iq_load_u16(p + 4 * stride), (short)iq_load_u16(p + 5 * stride),
                                     (short)iq_load_u16(p + 6 * stride), (short)iq_load_u16(p + 7 * stride));
    return _mm256_cvtph_ps(h);
}
IQ_INLINE f32x16 slots_pair_f16(const uint8_t *p, size_t stride, iq_slot_order order) {
    const __m256 x = gather8_f16(p, stride);
    const __m256i *index = (const __m256i *)lane_block[order];
    return F32X16(_mm256_permutevar8x32_ps(x, _mm256_load_si256(index)),
                  _mm256_permutevar8x32_ps(x, _mm256_load_si256(index + 1)));
}

/* ---- tiles of 16 rows (gemm) ------------------------------------------------------------------------------------ */

/* In place: dword c of row r goes to dword r of row c. */
IQ_INLINE void transpose8(__m256i r[8]) {
    __m256i t[8];
    for (int i = 0; i < 8; i += 4) {
        const __m256i a = _mm256_unpacklo_epi32(r[i], r[i + 1]), b = _mm256_unpackhi_epi32(r[i], r[i + 1]);
        const __m256i c = _mm256_unpacklo_epi32(r[i + 2], r[i + 3]), d = _mm256_unpackhi_epi32(r[i + 2], r[i + 3]);
        t[i] = _mm256_unpacklo_epi64(a, c), t[i + 1] = _mm256_unpackhi_epi64(a, c);
        t[i + 2] = _mm256_unpacklo_epi64(b, d), t[i + 3] = _mm256_unpackhi_epi64(b, d);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2x128_si256(t[i], t[4 + i], 0x20);
        r[4 + i] = _mm256_permute2x128_si256(t[i], t[4 + i], 0x31);
    }
}
/* 16 floats of each of 16 rows to 16 vectors over the rows */
IQ_INLINE void tile_store_f32(float *out, f32x16 rows[16]) {
    for (int part = 0; part < 4; part++) {
        const int half = part / 2, first_row = part % 2 * 8;
        __m256i r[8];
        for (int i = 0; i < 8; i++) r[i] = _mm256_castps_si256(rows[first_row + i].v[half]);
        transpose8(r);
        for (int i = 0; i < 8; i++) _mm256_store_si256((__m256i *)(out + 16 * (8 * half + i) + first_row), r[i]);
    }
}
/* For each byte of chunk i: the int8 value of its slot (a small integer per lane, given as float) */
IQ_INLINE lanes64 v_spread(f32x16 lane_values, int i) {
    const __m256i byte = _mm256_set1_epi8((char)(4 * i)); /* slot k of chunk i is lane 4k + i */
    return LANES64(_mm256_shuffle_epi8(_mm256_cvtps_epi32(lane_values.v[0]), byte),
                   _mm256_shuffle_epi8(_mm256_cvtps_epi32(lane_values.v[1]), byte));
}

/* ---- q8_0 keys and values (kernel/attention_q8.inc.h) ------------------------------------------------------------ */

IQ_INLINE i32x16 i32x16_set1(int32_t a) { return I32X16(_mm256_set1_epi32(a), _mm256_set1_epi32(a)); }
/* round(a), ties to even, as int16; |a| <= 32767, a NaN becomes any number */
IQ_INLINE void f32x16_store_i16(int16_t *p, f32x16 a) {
    const __m256i x = _mm256_packs_epi32(_mm256_cvtps_epi32(a.v[0]), _mm256_cvtps_epi32(a.v[1]));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(x, 0xd8));
}
typedef struct {
    __m256i v[2];
} kv_codes, kv_pairs;

IQ_INLINE kv_pairs kv_load_v(const uint8_t *p) { /* 16 columns x 2 positions */
    return (kv_pairs){{_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)),
                       _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))}};
}

#if defined(IQ_AVX_VNNI)
#include "isa/ops_avx2_vnni.h"
#else
#include "isa/ops_avx2_maddubs.h"
#endif

/* 64 codes of each of 16 rows to four units per slot, the slots `stride` bytes apart */
IQ_INLINE void tile_store(uint8_t *units, size_t stride, lanes64 rows[16]) {
    for (int part = 0; part < 4; part++) { /* 8 rows x 32 codes */
        const int half = part / 2, first_row = part % 2 * 8;
        __m256i r[8];
        for (int i = 0; i < 8; i++) r[i] = rows[first_row + i].v[half];
        transpose8(r);
        for (int i = 0; i < 8; i++) { /* column group i: 8 rows x 4 codes */
            tile_store_group(units + (size_t)(2 * half + i / 4) * stride + i % 4 * TILE_UNIT, first_row, r[i]);
        }
    }
}

#endif
