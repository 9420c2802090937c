/* What multiplies on AVX2 with AVX-VNNI: part of ops_avx2.h.
 *
 * vpdpbusd adds four products of unsigned with signed bytes to an int32, and nothing saturates: codes are the unsigned
 * side, signed ones with +128 (LANE_BIAS), which takes back who knows the sums of the activations. vpdpwssd adds two
 * products of int16. */
#ifndef IQ_ISA_OPS_AVX2_VNNI_H
#define IQ_ISA_OPS_AVX2_VNNI_H

/* sum[i] += 4 codes times 4 q; sum[i] += 2 a times 2 b */
IQ_INLINE __m256i add_dot4(__m256i sum, __m256i codes, __m256i q) { return _mm256_dpbusd_avx_epi32(sum, codes, q); }
IQ_INLINE __m256i add_dot2(__m256i sum, __m256i a, __m256i b) { return _mm256_dpwssd_avx_epi32(sum, a, b); }

IQ_INLINE __m256i dot_u7(__m256i codes, __m256i q) { return add_dot4(_mm256_setzero_si256(), codes, q); }
IQ_INLINE dot64 v_dot_u7(lanes64 c, lanes64 q) { return (dot64){{dot_u7(c.v[0], q.v[0]), dot_u7(c.v[1], q.v[1])}}; }
IQ_INLINE dot64 v_dot_s8(lanes64 c, lanes64 q) { return v_dot_u7(c, q); }
IQ_INLINE dot64 v_dot_i8(lanes64 c, lanes64 q) { return v_dot_u7(c, q); }

/* A dot64 can be carried on; v_pair_sums: as v_slot_sums, for chunks of pairs a + b and c + d added up before: the sums
 * of their lanes 4k, 4k + 1 (and 4k + 2, 4k + 3) are those of the pair, how they are shared out is open. */
#define DOTS_ADD_UP
IQ_INLINE dot64 v_dot_more(dot64 sum, lanes64 c, lanes64 q) {
    return (dot64){{add_dot4(sum.v[0], c.v[0], q.v[0]), add_dot4(sum.v[1], c.v[1], q.v[1])}};
}
IQ_INLINE i32x16 v_pair_sums(dot64 ab, dot64 cd) {
    return I32X16(_mm256_hadd_epi32(ab.v[0], cd.v[0]), _mm256_hadd_epi32(ab.v[1], cd.v[1]));
}

/* ---- tiles of 16 rows (gemm) ------------------------------------------------------------------------------------ */

#define TILE_UNIT 64   /* bytes of 16 rows x 4 columns */
#define TILE_TOKENS 4  /* 8 int32 accumulators of the 16 registers; the float ones rest on the stack */
#define TILE_X_BYTES 1 /* bytes per activation as tile_dot reads them */
#define GEMM_TILES 16  /* what fits into the scratch memory with bytes as codes */

typedef struct {
    __m256i v[2];
} tile_w;
typedef const int8_t *tile_x;

IQ_INLINE tile_w tile_load(const uint8_t *unit) { return (tile_w){{load32(unit), load32(unit + 32)}}; }
IQ_INLINE tile_x tile_load_x(const int8_t *q) { return q; }
IQ_INLINE i32x16 tile_init(const int32_t *bias) { return I32X16(_mm256_set1_epi32(*bias), _mm256_set1_epi32(*bias)); }
/* acc[row] += 4 codes of the row times activations 4c .. 4c + 3 */
IQ_INLINE i32x16 tile_dot(i32x16 acc, tile_w w, tile_x x, int c) {
    const __m256i q4 = _mm256_set1_epi32((int)iq_load_u32(x + 4 * c));
    for (int i = 0; i < 2; i++) {
        acc.v[i] = add_dot4(acc.v[i], w.v[i], q4);
        KEEP_ORDER(acc.v[i]);
    }
    return acc;
}
/* 16 activations as tile_dot reads them */
IQ_INLINE void tile_store_x(int8_t *out, const int8_t *q) { memcpy(out, q, 16); }
/* 8 rows x 4 codes to a unit, from the first of these rows on */
IQ_INLINE void tile_store_group(uint8_t *unit, int first_row, __m256i codes) {
    _mm256_store_si256((__m256i *)(unit + 4 * first_row), codes);
}

/* ---- q8_0 keys and values ---------------------------------------------------------------------------------------- */

#define KV_BIAS 128 /* what kv_load_k adds to the codes */

IQ_INLINE kv_codes kv_load_k(const uint8_t *p) { /* 16 positions x 4 columns */
    return (kv_codes){{biased(load32(p)), biased(load32(p + 32))}};
}
/* acc[position] += 4 codes of the position times q[0 .. 3] */
IQ_INLINE i32x16 kv_dot4(i32x16 acc, kv_codes k, const int8_t *q) {
    const __m256i q4 = _mm256_set1_epi32((int)iq_load_u32(q));
    for (int i = 0; i < 2; i++) acc.v[i] = add_dot4(acc.v[i], k.v[i], q4);
    return acc;
}
/* acc[column] += the codes of two positions times w[0], w[1] */
IQ_INLINE i32x16 kv_dot2(i32x16 acc, kv_pairs v, const int16_t *w) {
    const __m256i w2 = _mm256_set1_epi32((int)iq_load_u32(w));
    for (int i = 0; i < 2; i++) acc.v[i] = add_dot2(acc.v[i], v.v[i], w2);
    return acc;
}

#endif
