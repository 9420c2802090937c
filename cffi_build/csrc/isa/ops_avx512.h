/* The vocabulary on AVX-512 (F, BW, DQ, VL, VNNI, VBMI): one register holds 64 codes, or one float per slot.
 *
 * Unsigned codes times signed activations is what vpdpbusd multiplies: signed codebooks are stored with +128
 * (LANE_BIAS), and the unpackers take it back through the slot's offset.
 * Included by kernel_avx512.c inside its target region, after <immintrin.h>. */
#ifndef IQ_ISA_OPS_AVX512_H
#define IQ_ISA_OPS_AVX512_H

#define LANE_BIAS 128 /* what v_lut*_s8 and v_signed add to a signed code */
#define TILE_BIAS 128 /* what the codes of a gemm tile carry */

/* ---- 16 floats ------------------------------------------------------------------------------------------------ */

typedef __m512 f32x16;

IQ_INLINE f32x16 f32x16_load(const float *p) { return _mm512_loadu_ps(p); }
IQ_INLINE void f32x16_store(float *p, f32x16 a) { _mm512_storeu_ps(p, a); }
IQ_INLINE __mmask16 first_lanes(size_t n) { return (__mmask16)((1u << n) - 1u); }
IQ_INLINE f32x16 f32x16_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
IQ_INLINE void f32x16_store_n(float *p, f32x16 a, size_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), a); }
IQ_INLINE f32x16 f32x16_set1(float a) { return _mm512_set1_ps(a); }
IQ_INLINE f32x16 f32x16_zero(void) { return _mm512_setzero_ps(); }
IQ_INLINE f32x16 f32x16_add(f32x16 a, f32x16 b) { return _mm512_add_ps(a, b); }
IQ_INLINE f32x16 f32x16_sub(f32x16 a, f32x16 b) { return _mm512_sub_ps(a, b); }
IQ_INLINE f32x16 f32x16_mul(f32x16 a, f32x16 b) { return _mm512_mul_ps(a, b); }
IQ_INLINE f32x16 f32x16_div(f32x16 a, f32x16 b) { return _mm512_div_ps(a, b); }
IQ_INLINE f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c) { return _mm512_fmadd_ps(a, b, c); } /* a * b + c */
/* A NaN in b is returned; a NaN in a gives b. */
IQ_INLINE f32x16 f32x16_max(f32x16 a, f32x16 b) { return _mm512_max_ps(a, b); }
IQ_INLINE f32x16 f32x16_min(f32x16 a, f32x16 b) { return _mm512_min_ps(a, b); }
/* a > b ? x : y; with a NaN: y */
IQ_INLINE f32x16 f32x16_select_gt(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
IQ_INLINE float f32x16_reduce_add(f32x16 a) { return _mm512_reduce_add_ps(a); }
/* Lane r = the sum (or maximum) of rows[r], n of them (4 or 16; of 4, the other lanes repeat them): a transposition
 * that adds up on the way. */
#define FOLD_PAIR(op, shuffle, a, b, low, high) op(shuffle(a, b, low), shuffle(a, b, high))
#define FOLD_ROWS(op, rows, n)                                                                                         \
    __m512 q[4];                                                                                                       \
    for (int i = 0; i < 4; i++) { /* 4 rows in each 128 bits */                                                        \
        const __m512 *r = (rows) + ((n) == 16 ? 4 * i : 0);                                                            \
        const __m512 a = op(_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]));                           \
        const __m512 b = op(_mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3]));                           \
        q[i] = FOLD_PAIR(op, _mm512_shuffle_ps, a, b, 0x44, 0xee);                                                     \
    }                                                                                                                  \
    const __m512 c = FOLD_PAIR(op, _mm512_shuffle_f32x4, q[0], q[1], 0x88, 0xdd);                                      \
    const __m512 d = FOLD_PAIR(op, _mm512_shuffle_f32x4, q[2], q[3], 0x88, 0xdd);                                      \
    return FOLD_PAIR(op, _mm512_shuffle_f32x4, c, d, 0x88, 0xdd)
IQ_INLINE f32x16 f32x16_row_sums(const f32x16 *rows, const int n) { FOLD_ROWS(_mm512_add_ps, rows, n); }
IQ_INLINE f32x16 f32x16_row_maxima(const f32x16 *rows, const int n) { FOLD_ROWS(_mm512_max_ps, rows, n); }
#define ROW_SUMS 16
IQ_INLINE void row_sums(const f32x16 *rows, float *out) { f32x16_store(out, f32x16_row_sums(rows, 16)); }
IQ_INLINE float f32x16_reduce_max(f32x16 a) { return _mm512_reduce_max_ps(a); }
IQ_INLINE f32x16 f32x16_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
IQ_INLINE void f32x16_store_f16(void *p, f32x16 a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/* Eight bytes at p must be readable: a conversion from memory saves a shuffle. */
IQ_INLINE f32x16 f32x16_splat_first_f16(const void *p) {
    return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p)));
}
IQ_INLINE f32x16 f32x16_splat_f16(const void *p) { return _mm512_cvtph_ps(_mm256_set1_epi16((short)iq_load_u16(p))); }
IQ_INLINE f32x16 f32x16_load_bf16(const void *p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
/* Nearest integer, ties to even; f32x16_scale2: a * 2^n for integral n, |n| <= 128. */
IQ_INLINE f32x16 f32x16_round(f32x16 a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
IQ_INLINE f32x16 f32x16_scale2(f32x16 a, f32x16 n) { return _mm512_scalef_ps(a, n); }
/* a * 2^n for integral n in -126 .. 0 and a in 0.7 .. 1.5, or NaN; f32x16_abs: |a| */
IQ_INLINE f32x16 f32x16_raise2(f32x16 a, f32x16 n) { return _mm512_scalef_ps(a, n); }
IQ_INLINE f32x16 f32x16_abs(f32x16 a) { return _mm512_abs_ps(a); }

/* ---- 16 int32 --------------------------------------------------------------------------------------------------- */

typedef __m512i i32x16;

IQ_INLINE f32x16 i32x16_f32(i32x16 a) { return _mm512_cvtepi32_ps(a); }
IQ_INLINE i32x16 i32x16_abs_bits(f32x16 a) {
    return _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff));
}
IQ_INLINE uint32_t i32x16_reduce_max2(i32x16 a, i32x16 b) {
    return (uint32_t)_mm512_reduce_max_epi32(_mm512_max_epi32(a, b));
}
/* round(a), ties to even, as int8; |a| < 128 */
IQ_INLINE void f32x16_store_i8(int8_t *p, f32x16 a) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}

/* ---- 64 codes --------------------------------------------------------------------------------------------------- */

typedef __m512i lanes64;

IQ_INLINE lanes64 v_load(const void *p) { return _mm512_loadu_si512(p); }
/* 32 bytes twice, the second copy shifted right by n; bits n positions from each byte's top are undefined. */
IQ_INLINE lanes64 v_load32_twice(const void *p, int n) {
    const __m512i x = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)p));
    const __m512i by = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16((short)n), 1);
    return _mm512_srlv_epi16(x, by);
}
/* 16 bytes at p, p + stride, p + 2 stride, p + 3 stride */
IQ_INLINE lanes64 v_load16x4(const uint8_t *p, size_t stride) {
    const __m256i a = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p)),
                                              _mm_loadu_si128((const __m128i *)(p + stride)), 1);
    const __m256i b =
        _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(p + 2 * stride))),
                                _mm_loadu_si128((const __m128i *)(p + 3 * stride)), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}
/* 16 bytes four times, copy k shifted right by 2k; the upper bits of each byte are undefined. */
IQ_INLINE lanes64 v_load16_fan(const void *p) {
    const __m512i x = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
    const __m512i by = _mm512_set_epi64(0x0006000600060006, 0x0006000600060006, 0x0004000400040004, 0x0004000400040004,
                                        0x0002000200020002, 0x0002000200020002, 0, 0);
    return _mm512_srlv_epi16(x, by);
}
/* 8 bytes at p, p + stride, ... twice each, the second copy shifted right by n; its upper bits are undefined. */
IQ_INLINE __m128i load8_twice(const uint8_t *p, int n) {
    const __m128i x = _mm_loadl_epi64((const __m128i *)p);
    return _mm_unpacklo_epi64(x, _mm_srli_epi16(x, n));
}
IQ_INLINE lanes64 v_load8x4_twice(const uint8_t *p, size_t stride, int n) {
    const __m256i a = _mm256_inserti128_si256(_mm256_castsi128_si256(load8_twice(p, n)), load8_twice(p + stride, n), 1);
    const __m256i b = _mm256_inserti128_si256(_mm256_castsi128_si256(load8_twice(p + 2 * stride, n)),
                                              load8_twice(p + 3 * stride, n), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}
IQ_INLINE lanes64 v_load32x2(const uint8_t *a, const uint8_t *b) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)a)),
                              _mm256_loadu_si256((const __m256i *)b), 1);
}
IQ_INLINE lanes64 v_set1(int value) { return _mm512_set1_epi8((char)value); }
IQ_INLINE lanes64 v_and(lanes64 a, int mask) { return _mm512_and_si512(a, v_set1(mask)); }
IQ_INLINE lanes64 v_or(lanes64 a, lanes64 b) { return _mm512_or_si512(a, b); }
IQ_INLINE lanes64 v_add(lanes64 a, lanes64 b) { return _mm512_add_epi8(a, b); }
/* Shifts within bytes; the n bits shifted in are undefined: mask them, or look up with a table that ignores them. */
IQ_INLINE lanes64 v_shr(lanes64 a, int n) { return n ? _mm512_srli_epi16(a, (unsigned)n) : a; }
IQ_INLINE lanes64 v_shl(lanes64 a, int n) { return n ? _mm512_slli_epi16(a, (unsigned)n) : a; }
IQ_INLINE lanes64 v_low4(lanes64 a) { return v_and(a, 15); }
IQ_INLINE lanes64 v_high4(lanes64 a) { return v_and(v_shr(a, 4), 15); }
/* As low4 and high4, but fit only as an index of a table: the other bits are undefined where that is cheaper. */
IQ_INLINE lanes64 v_index_low4(lanes64 a) { return a; }
IQ_INLINE lanes64 v_index_high4(lanes64 a) { return v_shr(a, 4); }
/* An index of n bits: those of mask from a, the others from b. */
IQ_INLINE lanes64 v_index(lanes64 a, int mask, lanes64 b, int n) {
    (void)n;
    return _mm512_ternarylogic_epi32(v_set1(mask), a, b, 0xca); /* mask ? a : b */
}
/* 16-bit words: bit 0 cleared, then t ^ t >> 1 (the code of IQ4_KSS). */
IQ_INLINE lanes64 v_gray16(lanes64 a) {
    const __m512i t = _mm512_and_si512(a, _mm512_set1_epi16((short)0xfffe));
    return _mm512_xor_si512(t, _mm512_srli_epi16(t, 1));
}
/* Bit 0 of each of the 64 16-bit words of 128 bytes. */
IQ_INLINE uint64_t low_bits_of_words(const uint8_t *p) {
    const __m512i one = _mm512_set1_epi16(1);
    return (uint64_t)_mm512_test_epi16_mask(v_load(p), one) | (uint64_t)_mm512_test_epi16_mask(v_load(p + 64), one)
                                                                  << 32;
}
/* 64 bits, one per lane in order: `value` where set, else 0. */
IQ_INLINE lanes64 v_from_bits(uint64_t bits, int value) {
    return _mm512_maskz_mov_epi8((__mmask64)bits, v_set1(value));
}

/* Codebooks; u7: values 0..127, s8: signed values, plus LANE_BIAS. vpermb looks at 6 bits: tables repeat. */
typedef __m512i lut16, lut32, lut64;

IQ_INLINE lanes64 v_signed(lanes64 a) { return _mm512_xor_si512(a, v_set1(0x80)); }
IQ_INLINE lut16 lut16_u7(const int8_t *t) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)t)); }
IQ_INLINE lut16 lut16_s8(const int8_t *t) { return v_signed(lut16_u7(t)); }
IQ_INLINE lut32 lut32_u7(const int8_t *t) { return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)t)); }
IQ_INLINE lut32 lut32_s8(const int8_t *t) { return v_signed(lut32_u7(t)); }
IQ_INLINE lut64 lut64_s8(const int8_t *t) { return v_signed(_mm512_loadu_si512(t)); }
IQ_INLINE lanes64 v_lut16(lut16 t, lanes64 index) { return _mm512_permutexvar_epi8(index, t); }
IQ_INLINE lanes64 v_lut32(lut32 t, lanes64 index) { return _mm512_permutexvar_epi8(index, t); }
IQ_INLINE lanes64 v_lut64(lut64 t, lanes64 index) { return _mm512_permutexvar_epi8(index, t); }

/* ---- dot products ----------------------------------------------------------------------------------------------- */

/* The products of 64 codes with 64 activations, summed within slots as far as is free. */
typedef __m512i dot64;

IQ_INLINE dot64 v_dot_u7(lanes64 codes, lanes64 q) { return _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, q); }
IQ_INLINE dot64 v_dot_s8(lanes64 codes, lanes64 q) { return v_dot_u7(codes, q); }
IQ_INLINE dot64 v_dot_i8(lanes64 codes, lanes64 q) { return v_dot_u7(codes, q); }

/* Slot sums in lane order: a 4 x 4 transposition of dwords within each 128 bits, added up on the way. */
IQ_INLINE i32x16 v_slot_sums(dot64 a, dot64 b, dot64 c, dot64 d) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* A dot64 can be carried on; v_pair_sums: as v_slot_sums, for chunks of pairs a + b and c + d added up before: the sums
 * of their lanes 4k, 4k + 1 (and 4k + 2, 4k + 3) are those of the pair, how they are shared out is open. */
#define DOTS_ADD_UP
IQ_INLINE dot64 v_dot_more(dot64 sum, lanes64 codes, lanes64 q) { return _mm512_dpbusd_epi32(sum, codes, q); }
IQ_INLINE i32x16 v_pair_sums(dot64 ab, dot64 cd) {
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* ---- one small integer per slot --------------------------------------------------------------------------------- */

typedef __m512i slots; /* int32 lanes in lane order */

/* The field of `bits` bits at bit `width` * n of word, n the lane's sub-block (or its 32-block) */
IQ_INLINE slots slots_fields(uint64_t word, __m512i offsets, int mask) {
    const __m512i bytes = _mm512_multishift_epi64_epi8(offsets, _mm512_set1_epi64((long long)word));
    return _mm512_and_si512(bytes, _mm512_set1_epi32(mask));
}
IQ_INLINE __m512i lane_offsets(const int32_t *index, int log2_bits) {
    return _mm512_slli_epi32(_mm512_load_si512(index), (unsigned)log2_bits);
}
IQ_INLINE slots slots_nibbles(uint64_t word, iq_slot_order order) {
    return slots_fields(word, lane_offsets(lane_sub_block[order], 2), 15);
}
/* Through a table of 16 values; vpermps looks at 4 bits. */
IQ_INLINE f32x16 slots_nibble_values(uint64_t word, iq_slot_order order, const nibble_values *values) {
    const __m512i bytes =
        _mm512_multishift_epi64_epi8(lane_offsets(lane_sub_block[order], 2), _mm512_set1_epi64((long long)word));
    return _mm512_permutexvar_ps(bytes, _mm512_load_ps(values->f32));
}
/* nibble + 16 * crumb - 32 */
IQ_INLINE f32x16 slots_6bit_values(uint64_t nibbles, uint32_t crumbs, iq_slot_order order) {
    const __m512i high =
        _mm512_multishift_epi64_epi8(lane_offsets(lane_sub_block[order], 1), _mm512_set1_epi32((int)crumbs));
    return _mm512_add_ps(slots_nibble_values(nibbles, order, &values_0_to_15),
                         _mm512_permutexvar_ps(high, _mm512_load_ps(values_of_crumbs.f32)));
}
IQ_INLINE slots slots_crumbs(uint32_t word, iq_slot_order order) {
    return slots_fields(word, lane_offsets(lane_sub_block[order], 1), 3);
}
IQ_INLINE slots slots_pair_bytes(uint64_t word, iq_slot_order order) {
    return slots_fields(word, lane_offsets(lane_block[order], 3), 255);
}
IQ_INLINE slots slots_pair_nibbles(uint32_t word, iq_slot_order order) {
    return slots_fields(word, lane_offsets(lane_block[order], 2), 15);
}
IQ_INLINE slots slots_pair_crumbs(uint32_t word, iq_slot_order order) {
    return slots_fields(word, lane_offsets(lane_block[order], 1), 3);
}
IQ_INLINE slots slots_bytes(const void *p, iq_slot_order order) {
    const __m512i natural = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm512_permutexvar_epi32(_mm512_load_si512(lane_sub_block[order]), natural);
}
IQ_INLINE slots slots_words(uint64_t low, uint64_t high, iq_slot_order order) { /* 16 bytes in natural order */
    const __m512i natural = _mm512_cvtepi8_epi32(_mm_set_epi64x((long long)high, (long long)low));
    return _mm512_permutexvar_epi32(_mm512_load_si512(lane_sub_block[order]), natural);
}
IQ_INLINE slots slots_and(slots a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi32(mask)); }
IQ_INLINE slots slots_shr(slots a, int n) { return _mm512_srli_epi32(a, (unsigned)n); } /* of values 0..255 */
IQ_INLINE slots slots_add(slots a, int b) { return _mm512_add_epi32(a, _mm512_set1_epi32(b)); }
IQ_INLINE slots slots_join(slots low, slots high, int shift) { /* low + (high << shift), no overlap */
    return _mm512_or_si512(low, _mm512_slli_epi32(high, (unsigned)shift));
}
IQ_INLINE f32x16 slots_f32(slots a) { return _mm512_cvtepi32_ps(a); }
/* b in the lanes whose bit of word is set, else a; bit first + n is that of sub-block (32-block) n */
IQ_INLINE f32x16 choose_bits(uint32_t word, int first, const int32_t *lane_bit, f32x16 a, f32x16 b) {
    const __m512i mask = _mm512_slli_epi32(_mm512_load_si512(lane_bit), (unsigned)first);
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(_mm512_set1_epi32((int)word), mask), a, b);
}
IQ_INLINE f32x16 slots_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    return choose_bits(word, first, lane_sub_block_bit[order], a, b);
}
IQ_INLINE f32x16 slots_pair_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    return choose_bits(word, first, lane_block_bit[order], a, b);
}
IQ_INLINE f32x16 slots_odd_choose(slots s, f32x16 a, f32x16 b) {
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(s, _mm512_set1_epi32(1)), a, b);
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
    const __m512 x = _mm512_castps256_ps512(gather8_f16(p, stride));
    return _mm512_permutexvar_ps(_mm512_load_si512(lane_block[order]), x);
}

/* ---- tiles of 16 rows (gemm) ------------------------------------------------------------------------------------ */

#define TILE_UNIT 64   /* bytes of 16 rows x 4 columns */
#define TILE_TOKENS 8  /* 8 int32 and 16 float accumulators of the 32 registers */
#define TILE_X_BYTES 1 /* bytes per activation as tile_dot reads them */
#define TILE_UNROLL IQ_UNROLL /* gcc keeps the sums of tokens in registers only if it unrolls early */
#define GEMM_TILES 16  /* what fits into the scratch memory with bytes as codes */

typedef __m512i tile_w;
typedef const int8_t *tile_x;

IQ_INLINE tile_w tile_load(const uint8_t *unit) { return _mm512_load_si512(unit); }
IQ_INLINE tile_x tile_load_x(const int8_t *q) { return q; }
IQ_INLINE i32x16 tile_init(const int32_t *bias) { return _mm512_set1_epi32(*bias); }
/* acc[row] += 4 codes of the row times activations 4c .. 4c + 3. gcc would load these by an instruction of its own: 2
 * to 3 % of the loop. */
IQ_INLINE i32x16 tile_dot(i32x16 acc, tile_w w, tile_x x, int c) {
#if defined(__GNUC__) && !defined(__clang__)
    typedef struct {
        int8_t q[4];
    } four;
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const four *)(x + 4 * c)));
    return acc;
#else
    return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32((int)iq_load_u32(x + 4 * c)));
#endif
}
/* 16 activations as tile_dot reads them */
IQ_INLINE void tile_store_x(int8_t *out, const int8_t *q) { memcpy(out, q, 16); }

/* In place: dword c of row r goes to dword r of row c. */
IQ_INLINE void transpose16(__m512i r[16]) {
    __m512i t[16];
    IQ_UNROLL for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]), d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c), t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d), t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    /* t[4g + i] holds column 4k + i of rows 4g .. 4g + 3 in its 128-bit lane k */
    IQ_UNROLL for (int i = 0; i < 4; i++) {
        const __m512i a = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x88), b = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xdd);
        r[i] = _mm512_shuffle_i32x4(a, c, 0x88), r[8 + i] = _mm512_shuffle_i32x4(a, c, 0xdd);
        r[4 + i] = _mm512_shuffle_i32x4(b, d, 0x88), r[12 + i] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}
/* 64 codes of each of 16 rows to four units per slot, the slots `stride` bytes apart */
IQ_INLINE void tile_store(uint8_t *units, size_t stride, const lanes64 rows[16]) {
    __m512i r[16]; /* transposed in registers: in place would be in memory */
    IQ_UNROLL for (int i = 0; i < 16; i++) r[i] = rows[i];
    transpose16(r);
    IQ_UNROLL for (size_t i = 0; i < 16; i++) _mm512_store_si512(units + i / 4 * stride + i % 4 * TILE_UNIT, r[i]);
}
/* 16 floats of each of 16 rows to 16 vectors over the rows */
IQ_INLINE void tile_store_f32(float *out, f32x16 rows[16]) {
    __m512i r[16];
    IQ_UNROLL for (int i = 0; i < 16; i++) r[i] = _mm512_castps_si512(rows[i]);
    transpose16(r);
    IQ_UNROLL for (int i = 0; i < 16; i++) _mm512_store_si512(out + 16 * i, r[i]);
}

#define TILE_FOLDS /* what folded codes (kernel/gemm_shape.inc.h) need is here: */

IQ_INLINE i32x16 i32x16_add(i32x16 a, i32x16 b) { return _mm512_add_epi32(a, b); }
/* b is added in the lanes whose bit is set */
IQ_INLINE f32x16 f32x16_add_where(f32x16 a, uint16_t bits, f32x16 b) { return _mm512_mask_add_ps(a, bits, a, b); }
/* Bit j of out[i] is bit i of in[j]. */
IQ_INLINE void tile_store_bits(uint16_t out[16], const uint16_t in[16]) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)in);
    IQ_UNROLL for (int i = 0; i < 16; i++) out[i] = _mm256_test_epi16_mask(x, _mm256_set1_epi16((short)(1 << i)));
}
/* The four codes of each lane, by its sub-block's nibble and bit; in `odd` the lanes with an odd nibble and no bit. */
IQ_INLINE lanes64 slots_fold_nibbles(uint64_t nibbles, uint16_t bits, iq_slot_order order,
                                     const uint8_t codes[2][16][4], uint16_t *odd) {
    const __m512i nibble =
        _mm512_multishift_epi64_epi8(lane_offsets(lane_sub_block[order], 2), _mm512_set1_epi64((long long)nibbles));
    const __mmask16 set = _mm512_test_epi32_mask(_mm512_set1_epi32(bits), _mm512_load_si512(lane_sub_block_bit[order]));
    *odd = _mm512_mask_test_epi32_mask((__mmask16)~set, nibble, _mm512_set1_epi32(1));
    return _mm512_mask_permutexvar_epi32(_mm512_permutexvar_epi32(nibble, _mm512_load_si512(codes[0])), set, nibble,
                                         _mm512_load_si512(codes[1]));
}
/* For each byte of chunk i, of which two bits count: that one of its lane's four codes */
IQ_INLINE lanes64 v_lut_slots(lanes64 table, lanes64 codes, int i) {
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    const __m512i first = _mm512_add_epi8(_mm512_mullo_epi32(lane, _mm512_set1_epi32(0x04040404)), v_set1(4 * i));
    return _mm512_permutexvar_epi8(_mm512_ternarylogic_epi32(v_set1(3), codes, first, 0xca), table);
}

/* For each byte of chunk i: the int8 value of its slot (a small integer per lane, given as float) */
IQ_INLINE lanes64 v_spread(f32x16 lane_values, int i) {
    const __m512i x = _mm512_cvtps_epi32(lane_values); /* slot k of chunk i is lane 4k + i: byte 16k + 4i */
    return _mm512_shuffle_epi8(x, _mm512_set1_epi8((char)(4 * i)));
}

/* ---- q8_0 keys and values (kernel/attention_q8.inc.h) ------------------------------------------------------------ */

#define KV_BIAS 128 /* what kv_load_k adds to the codes */

IQ_INLINE i32x16 i32x16_set1(int32_t a) { return _mm512_set1_epi32(a); }
/* round(a), ties to even, as int16; |a| <= 32767, a NaN becomes any number */
IQ_INLINE void f32x16_store_i16(int16_t *p, f32x16 a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a)));
}
typedef __m512i kv_codes, kv_pairs;

IQ_INLINE kv_codes kv_load_k(const uint8_t *p) { return v_signed(v_load(p)); } /* 16 positions x 4 columns */
IQ_INLINE kv_pairs kv_load_v(const uint8_t *p) {                               /* 16 columns x 2 positions */
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
/* gcc would copy sums from register to register after each step of a loop; this keeps each where it is. */
#if defined(__GNUC__)
#define KEEP_PLACE(x) __asm__("" : "+v"(x))
#else
#define KEEP_PLACE(x) ((void)0)
#endif
/* acc[position] += 4 codes of the position times q[0 .. 3] */
IQ_INLINE i32x16 kv_dot4(i32x16 acc, kv_codes k, const int8_t *q) {
    acc = _mm512_dpbusd_epi32(acc, k, _mm512_set1_epi32((int)iq_load_u32(q)));
    KEEP_PLACE(acc);
    return acc;
}
/* acc[column] += the codes of two positions times w[0], w[1] */
IQ_INLINE i32x16 kv_dot2(i32x16 acc, kv_pairs v, const int16_t *w) {
    acc = _mm512_dpwssd_epi32(acc, v, _mm512_set1_epi32((int)iq_load_u32(w)));
    KEEP_PLACE(acc);
    return acc;
}

#endif
