/* Many tokens on NEON: what a tile of 8 rows and 4 tokens is made of. After ops_neon.h, in the same target region.
 *
 * A slot of a tile is 16 columns of 8 rows, 128 bytes; of a panel, 16 columns of 4 tokens. Sums stand in two halves of
 * 4 rows, each 4 registers:
 *
 *   i8mm     codes: 2 rows x 8 columns; sums[half][i]: rows 2 (i / 2) and + 1, tokens 2 (i % 2) and + 1
 *   dotprod  codes: 4 rows x 4 columns; sums[half][i]: 4 rows, token i
 *   else     4 rows x 4 columns: columns 0, 1 of each row, then 2, 3, so that smull and smlal2 add up within rows
 *
 * Integer sums become floats without a conversion: they start at the bits of the float 3 * 2^22, whose last bit counts
 * 1, and less than 2^22 is added. One multiply-add then takes that start away and scales:
 *
 *   (3 * 2^22 + dot) * d - 3 * 2^22 * d
 *
 * It is dot * d, rounded once, if 3 * d is a float: so d is rounded to 22 bits (tile_round). Where the sums start, and
 * what is taken away, is loaded, and not made by the pipes that multiply. */
#ifndef IQ_ISA_OPS_NEON_TILE_H
#define IQ_ISA_OPS_NEON_TILE_H

#define TILE_TOKENS 4
#define TILE_X_SLOT_BYTES (IQ_NEON_DOTPROD ? 64 : 256) /* without sdot each activation stands four times */

#if IQ_NEON_I8MM
#define TILE_ROW_VECTORS 4 /* 8 floats, one per row, as the sums want them */
#define TILE_D_VECTORS 2   /* 4 floats, one per token */
#else
#define TILE_ROW_VECTORS 2
#define TILE_D_VECTORS 1
#endif

#define SUM_START 0x4b400000
#define SUM_START_FLOAT 12582912.0f

#define SUM_STARTS_4 SUM_START, SUM_START, SUM_START, SUM_START
alignas(64) IQ_TABLE int32_t sum_starts[16] = {SUM_STARTS_4, SUM_STARTS_4, SUM_STARTS_4, SUM_STARTS_4};

/* ---- writing tiles and panels ----------------------------------------------------------------------------------- */

/* 16 codes of each of 4 rows to half a slot of a tile */
IQ_INLINE void tile_store(uint8_t *out, const uint8x16_t r[4]) {
#if IQ_NEON_I8MM
    for (int i = 0; i < 2; i++) {
        const uint64x2x2_t pair = {{vreinterpretq_u64_u8(r[2 * i]), vreinterpretq_u64_u8(r[2 * i + 1])}};
        vst2q_u64((uint64_t *)(void *)(out + 32 * i), pair);
    }
#elif IQ_NEON_DOTPROD
    const uint32x4x4_t rows = {{vreinterpretq_u32_u8(r[0]), vreinterpretq_u32_u8(r[1]), vreinterpretq_u32_u8(r[2]),
                                vreinterpretq_u32_u8(r[3])}};
    vst4q_u32((uint32_t *)(void *)out, rows);
#else
    const uint16x8x4_t rows = {{vreinterpretq_u16_u8(r[0]), vreinterpretq_u16_u8(r[1]), vreinterpretq_u16_u8(r[2]),
                                vreinterpretq_u16_u8(r[3])}};
    vst4q_u16((uint16_t *)(void *)out, rows);
#endif
}
/* 16 activations of 4 tokens to a slot of a panel */
IQ_INLINE void tile_store_x(int8_t *out, const int8x16_t x[4]) {
#if IQ_NEON_I8MM
    const uint8x16_t rows[4] = {vreinterpretq_u8_s8(x[0]), vreinterpretq_u8_s8(x[1]), vreinterpretq_u8_s8(x[2]),
                                vreinterpretq_u8_s8(x[3])};
    tile_store((uint8_t *)out, rows);
#elif IQ_NEON_DOTPROD
    for (int t = 0; t < 4; t++) vst1q_s8(out + 16 * t, x[t]);
#else
    for (int t = 0; t < 4; t++) { /* two columns four times */
        const int16x8_t pairs = vreinterpretq_s16_s8(x[t]);
        const int16x8x4_t copies = {{pairs, pairs, pairs, pairs}};
        vst4q_s16((int16_t *)(void *)(out + 64 * t), copies);
    }
#endif
}
IQ_INLINE void store_twice(float *out, float32x4_t a, float32x4_t b) { vst1q_f32(out, a), vst1q_f32(out + 4, b); }
/* A float of each of 4 rows, to half of the TILE_ROW_VECTORS */
IQ_INLINE void tile_store_rows(float *out, float32x4_t rows) {
#if IQ_NEON_I8MM
    store_twice(out, vzip1q_f32(rows, rows), vzip2q_f32(rows, rows));
#else
    vst1q_f32(out, rows);
#endif
}
/* A float of each of 4 tokens, to the TILE_D_VECTORS */
IQ_INLINE void tile_store_tokens(float *out, float32x4_t tokens) {
#if IQ_NEON_I8MM
    const float32x2_t low = vget_low_f32(tokens), high = vget_high_f32(tokens);
    store_twice(out, vcombine_f32(low, low), vcombine_f32(high, high));
#else
    vst1q_f32(out, tokens);
#endif
}
/* What tile_scale starts from: -3 * 2^22 * d for each sum of a half */
IQ_INLINE void tile_store_bases(float *out, float32x4_t d) {
    const float32x4_t base = vmulq_n_f32(d, -SUM_START_FLOAT);
#if IQ_NEON_I8MM
    tile_store_tokens(out, base), tile_store_tokens(out + 8, base);
#else
    store_twice(out, vdupq_laneq_f32(base, 0), vdupq_laneq_f32(base, 1));
    store_twice(out + 8, vdupq_laneq_f32(base, 2), vdupq_laneq_f32(base, 3));
#endif
}
/* To 22 bits; a NaN stays one. */
IQ_INLINE float32x4_t tile_round(float32x4_t d) {
    const int32x4_t bits = vaddq_s32(vreinterpretq_s32_f32(d), vdupq_n_s32(2));
    return vreinterpretq_f32_s32(vandq_s32(bits, vdupq_n_s32(~3)));
}
/* The int8 values of 16 lanes (small integers) */
IQ_INLINE uint8x16_t lane_bytes(f32x16 a) {
    const i32x16 x = V4_MAP(vcvtnq_s32_f32, a);
    const int16x8_t low = vuzp1q_s16(vreinterpretq_s16_s32(x.v[0]), vreinterpretq_s16_s32(x.v[1]));
    const int16x8_t high = vuzp1q_s16(vreinterpretq_s16_s32(x.v[2]), vreinterpretq_s16_s32(x.v[3]));
    return vuzp1q_u8(vreinterpretq_u8_s16(low), vreinterpretq_u8_s16(high));
}
IQ_INLINE lanes64 lanes_add(lanes64 a, uint8x16_t b) { return (lanes64)V4_MAP1(vaddq_u8, a, b); }

/* ---- multiplying ------------------------------------------------------------------------------------------------ */

typedef struct {
    int32x4_t v[2][4];
} tile_dots;
typedef struct {
    float32x4_t v[2][4];
} tile_sums;

/* Four registers, with one instruction that moves the pointer on */
IQ_INLINE int8x16x4_t take4(const int8_t **p) {
    const int8x16x4_t x = vld1q_s8_x4(*p);
    *p = opaque(*p + 64);
    return x;
}
/* Read again for each sum: to copy a register would take the time of a multiplication. */
IQ_INLINE tile_dots tile_start(const int32_t **starts) {
    tile_dots dots;
    IQ_UNROLL
    for (int h = 0; h < 2; h++) {
        *starts = opaque(*starts);
        IQ_UNROLL
        for (int i = 0; i < 4; i++) dots.v[h][i] = vld1q_s32(*starts + 4 * i);
    }
    return dots;
}

#if IQ_NEON_I8MM
#if defined(__clang__) && !defined(__ARM_FEATURE_MATMUL_INT8)
IQ_INLINE int32x4_t smmla(int32x4_t acc, int8x16_t a, int8x16_t b) {
    __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(a), "w"(b));
    return acc;
}
#else
IQ_INLINE int32x4_t smmla(int32x4_t acc, int8x16_t a, int8x16_t b) { return vmmlaq_s32(acc, a, b); }
#endif
#elif IQ_NEON_DOTPROD
IQ_INLINE int32x4_t sdot_lane(int32x4_t acc, int8x16_t a, int8x16_t b, int lane) {
#if defined(__clang__) && !defined(__ARM_FEATURE_DOTPROD)
    const int32x4_t x = vreinterpretq_s32_s8(b);
    const int32x4_t dup = lane == 0   ? vdupq_laneq_s32(x, 0)
                          : lane == 1 ? vdupq_laneq_s32(x, 1)
                          : lane == 2 ? vdupq_laneq_s32(x, 2)
                                      : vdupq_laneq_s32(x, 3);
    return sdot(acc, a, vreinterpretq_s8_s32(dup));
#else
    return lane == 0   ? vdotq_laneq_s32(acc, a, b, 0)
           : lane == 1 ? vdotq_laneq_s32(acc, a, b, 1)
           : lane == 2 ? vdotq_laneq_s32(acc, a, b, 2)
                       : vdotq_laneq_s32(acc, a, b, 3);
#endif
}
#endif

/* Is sum i of a half one of the first n_tokens tokens? */
IQ_INLINE bool tile_wanted(int i, int n_tokens) { return (IQ_NEON_I8MM ? i % 2 * 2 : i) < n_tokens; }

/* dots += one slot; the pointers move on. `i8`: codes may be -128 */
IQ_INLINE void tile_slot(const int8_t **w, const int8_t **x, int n_tokens, bool i8, tile_dots *dots) {
    (void)i8;
#if IQ_NEON_DOTPROD
    const int8x16x4_t q = take4(x);
    IQ_UNROLL
    for (int h = 0; h < 2; h++) {
        const int8x16x4_t codes = take4(w);
        IQ_UNROLL
        for (int c = 0; c < 4; c++) {
            IQ_UNROLL
            for (int i = 0; i < 4; i++) {
                if (!tile_wanted(i, n_tokens)) continue;
#if IQ_NEON_I8MM
                if (c >= 2) continue;
                dots->v[h][i] = smmla(dots->v[h][i], codes.val[i / 2 * 2 + c], q.val[i % 2 * 2 + c]);
#else
                dots->v[h][i] = sdot_lane(dots->v[h][i], codes.val[c], q.val[i], c);
#endif
            }
        }
    }
#else
    const int8x16x4_t codes[2] = {take4(w), take4(w)};
    IQ_UNROLL
    for (int i = 0; i < n_tokens; i++) {
        IQ_UNROLL
        for (int c = 0; c < 4; c++) {
            const int8x16_t q = vld1q_s8(*x + 64 * i + 16 * c);
            for (int h = 0; h < 2; h++) dots->v[h][i] = add_both_halves(dots->v[h][i], codes[h].val[c], q, i8);
        }
    }
    *x += TILE_X_SLOT_BYTES;
#endif
}

typedef struct {
    float32x4_t v[TILE_D_VECTORS];
} tile_tokens;

IQ_INLINE tile_tokens tile_load_tokens(const float *p) {
    tile_tokens d;
    for (int i = 0; i < TILE_D_VECTORS; i++) d.v[i] = vld1q_f32(p + 4 * i);
    return d;
}
/* a + b * d of the token of sum i */
IQ_INLINE float32x4_t tile_fma_token(float32x4_t a, float32x4_t b, tile_tokens d, int i) {
#if IQ_NEON_I8MM
    return vfmaq_f32(a, b, d.v[i % 2]);
#else
    return i == 0   ? vfmaq_laneq_f32(a, b, d.v[0], 0)
           : i == 1 ? vfmaq_laneq_f32(a, b, d.v[0], 1)
           : i == 2 ? vfmaq_laneq_f32(a, b, d.v[0], 2)
                    : vfmaq_laneq_f32(a, b, d.v[0], 3);
#endif
}
/* The vector of rows for sum i of half h */
IQ_INLINE int tile_row_vector(int h, int i) { return IQ_NEON_I8MM ? 2 * h + i / 2 : h; }

/* sums += dots * d * sw; bases as tile_store_bases made them, which move on by `step` */
IQ_INLINE void tile_scale(const tile_dots *dots, const float **bases, size_t step, tile_tokens d, const float *sw,
                          int n_tokens, tile_sums *sums) {
    float32x4_t rows[TILE_ROW_VECTORS];
    IQ_UNROLL
    for (int i = 0; i < TILE_ROW_VECTORS; i++) rows[i] = vld1q_f32(sw + 4 * i);
    IQ_UNROLL
    for (int h = 0; h < 2; h++) {
        const float *from = opaque(*bases);
        const float32x4_t base[4] = {vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)};
        *bases = opaque(from);
        IQ_UNROLL
        for (int i = 0; i < 4; i++) {
            if (!tile_wanted(i, n_tokens)) continue;
            const float32x4_t dot = tile_fma_token(base[i], vreinterpretq_f32_s32(dots->v[h][i]), d, i);
            sums->v[h][i] = vfmaq_f32(sums->v[h][i], dot, rows[tile_row_vector(h, i)]);
        }
    }
    *bases += step;
}
/* sums += rows * tokens */
IQ_INLINE void tile_add(const float *rows, const float *tokens, int n_tokens, tile_sums *sums) {
    const tile_tokens s = tile_load_tokens(tokens);
    float32x4_t row[TILE_ROW_VECTORS];
    IQ_UNROLL
    for (int i = 0; i < TILE_ROW_VECTORS; i++) row[i] = vld1q_f32(rows + 4 * i);
    IQ_UNROLL
    for (int k = 0; k < 8; k++) {
        const int h = k / 4, i = k % 4;
        if (tile_wanted(i, n_tokens)) sums->v[h][i] = tile_fma_token(sums->v[h][i], row[tile_row_vector(h, i)], s, i);
    }
}
/* 4 rows of a token */
IQ_INLINE float32x4_t tile_token(const tile_sums *sums, int half, int token) {
#if IQ_NEON_I8MM
    const float32x4_t a = sums->v[half][token / 2], b = sums->v[half][2 + token / 2];
    return token % 2 ? vuzp2q_f32(a, b) : vuzp1q_f32(a, b);
#else
    return sums->v[half][token];
#endif
}

#endif
