/* The vocabulary on NEON: four registers hold 64 codes, or one float per slot.
 *
 * Serves plain ARMv8.0 (a Raspberry Pi 4) and, with IQ_NEON_DOTPROD defined to 1, cores with sdot.
 * Included by kernel_neon*.c inside its target region, after <arm_neon.h>. */
#ifndef IQ_ISA_OPS_NEON_H
#define IQ_ISA_OPS_NEON_H

#define LANE_BIAS 0
#define TILE_BIAS 0

/* ---- 16 floats ------------------------------------------------------------------------------------------------ */

typedef struct {
    float32x4_t v[4];
} f32x16;

#define V4(a, b, c, d)                                                                                                 \
    {                                                                                                                  \
        { (a), (b), (c), (d) }                                                                                         \
    }
#define V4_MAP(f, a) V4(f((a).v[0]), f((a).v[1]), f((a).v[2]), f((a).v[3]))
#define V4_MAP1(f, a, b) V4(f((a).v[0], b), f((a).v[1], b), f((a).v[2], b), f((a).v[3], b))
#define V4_MAP2(f, a, b) V4(f((a).v[0], (b).v[0]), f((a).v[1], (b).v[1]), f((a).v[2], (b).v[2]), f((a).v[3], (b).v[3]))

IQ_INLINE f32x16 f32x16_load(const float *p) {
    return (f32x16)V4(vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12));
}
IQ_INLINE void f32x16_store(float *p, f32x16 a) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
IQ_INLINE f32x16 f32x16_load_n(const float *p, size_t n) {
    float t[16] = {0};
    memcpy(t, p, n * sizeof *p);
    return f32x16_load(t);
}
IQ_INLINE void f32x16_store_n(float *p, f32x16 a, size_t n) {
    float t[16];
    f32x16_store(t, a);
    memcpy(p, t, n * sizeof *p);
}
IQ_INLINE f32x16 f32x16_set1(float a) {
    const float32x4_t x = vdupq_n_f32(a);
    return (f32x16)V4(x, x, x, x);
}
IQ_INLINE f32x16 f32x16_zero(void) { return f32x16_set1(0.0f); }
IQ_INLINE f32x16 f32x16_add(f32x16 a, f32x16 b) { return (f32x16)V4_MAP2(vaddq_f32, a, b); }
IQ_INLINE f32x16 f32x16_sub(f32x16 a, f32x16 b) { return (f32x16)V4_MAP2(vsubq_f32, a, b); }
IQ_INLINE f32x16 f32x16_mul(f32x16 a, f32x16 b) { return (f32x16)V4_MAP2(vmulq_f32, a, b); }
IQ_INLINE f32x16 f32x16_div(f32x16 a, f32x16 b) { return (f32x16)V4_MAP2(vdivq_f32, a, b); }
IQ_INLINE f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c) { /* a * b + c */
    for (int i = 0; i < 4; i++) c.v[i] = vfmaq_f32(c.v[i], a.v[i], b.v[i]);
    return c;
}
/* a > b ? x : y; with a NaN: y */
IQ_INLINE f32x16 f32x16_select_gt(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
    for (int i = 0; i < 4; i++) y.v[i] = vbslq_f32(vcgtq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]);
    return y;
}
/* A NaN in b is returned; a NaN in a gives b (fmax would return either). */
IQ_INLINE f32x16 f32x16_max(f32x16 a, f32x16 b) { return f32x16_select_gt(a, b, a, b); }
IQ_INLINE f32x16 f32x16_min(f32x16 a, f32x16 b) { return f32x16_select_gt(b, a, a, b); }
IQ_INLINE float f32x16_reduce_add(f32x16 a) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(a.v[0], a.v[1]), vaddq_f32(a.v[2], a.v[3])));
}
IQ_INLINE float f32x16_reduce_max(f32x16 a) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3])));
}
/* Lane r = the sum (or maximum) of rows[r], n of them (4 or 16; of 4, the other lanes repeat them). */
#define FOLD_ROW(op, row) op(op((row).v[0], (row).v[1]), op((row).v[2], (row).v[3]))
#define FOLD_ROWS(op, pairs, rows, n)                                                                                  \
    f32x16 out;                                                                                                        \
    for (int i = 0; i < 4; i++) {                                                                                      \
        const f32x16 *r = (rows) + ((n) == 16 ? 4 * i : 0);                                                            \
        out.v[i] = pairs(pairs(FOLD_ROW(op, r[0]), FOLD_ROW(op, r[1])), pairs(FOLD_ROW(op, r[2]), FOLD_ROW(op, r[3])));\
    }                                                                                                                  \
    return out
IQ_INLINE f32x16 f32x16_row_sums(const f32x16 *rows, const int n) { FOLD_ROWS(vaddq_f32, vpaddq_f32, rows, n); }
IQ_INLINE f32x16 f32x16_row_maxima(const f32x16 *rows, const int n) { FOLD_ROWS(vmaxq_f32, vpmaxq_f32, rows, n); }
IQ_INLINE f32x16 f32x16_load_f16(const void *p) {
    const uint8x16_t low = vld1q_u8(p), high = vld1q_u8((const uint8_t *)p + 16);
    const float16x8_t a = vreinterpretq_f16_u8(low), b = vreinterpretq_f16_u8(high);
    return (f32x16)V4(vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)),
                      vcvt_high_f32_f16(b));
}
IQ_INLINE void f32x16_store_f16(void *p, f32x16 a) {
    const float16x8_t low = vcvt_high_f16_f32(vcvt_f16_f32(a.v[0]), a.v[1]);
    const float16x8_t high = vcvt_high_f16_f32(vcvt_f16_f32(a.v[2]), a.v[3]);
    vst1q_u8(p, vreinterpretq_u8_f16(low)), vst1q_u8((uint8_t *)p + 16, vreinterpretq_u8_f16(high));
}
IQ_INLINE f32x16 f32x16_splat_f16(const void *p) {
    const float32x4_t x = vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(iq_load_u16(p))));
    return (f32x16)V4(x, x, x, x);
}
/* Eight bytes at p must be readable. */
IQ_INLINE f32x16 f32x16_splat_first_f16(const void *p) { return f32x16_splat_f16(p); }
IQ_INLINE f32x16 f32x16_load_bf16(const void *p) {
    const uint16x8_t low = vreinterpretq_u16_u8(vld1q_u8(p));
    const uint16x8_t high = vreinterpretq_u16_u8(vld1q_u8((const uint8_t *)p + 16));
    return (f32x16)V4(vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(low), 16)),
                      vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(low), 16)),
                      vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(high), 16)),
                      vreinterpretq_f32_u32(vshll_n_u16(vget_high_u16(high), 16)));
}
/* Nearest integer, ties to even; f32x16_scale2: a * 2^n for integral n, |n| <= 128, in two steps so that 2^128 and
 * subnormal results come out right. */
IQ_INLINE f32x16 f32x16_round(f32x16 a) { return (f32x16)V4_MAP(vrndnq_f32, a); }
IQ_INLINE float32x4_t scale2_quarter(float32x4_t a, float32x4_t n) {
    const int32x4_t k = vcvtnq_s32_f32(n), first = vshrq_n_s32(k, 1), second = vsubq_s32(k, first);
    const int32x4_t one = vdupq_n_s32(0x3f800000);
    const float32x4_t x = vmulq_f32(a, vreinterpretq_f32_s32(vaddq_s32(one, vshlq_n_s32(first, 23))));
    return vmulq_f32(x, vreinterpretq_f32_s32(vaddq_s32(one, vshlq_n_s32(second, 23))));
}
IQ_INLINE f32x16 f32x16_scale2(f32x16 a, f32x16 n) { return (f32x16)V4_MAP2(scale2_quarter, a, n); }
/* a * 2^n for integral n in -126 .. 0 and a in 0.7 .. 1.5, or NaN; f32x16_abs: |a| */
IQ_INLINE float32x4_t raise2_quarter(float32x4_t a, float32x4_t n) {
    const int32x4_t exponent = vshlq_n_s32(vcvtnq_s32_f32(n), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), exponent));
}
IQ_INLINE f32x16 f32x16_raise2(f32x16 a, f32x16 n) { return (f32x16)V4_MAP2(raise2_quarter, a, n); }
IQ_INLINE f32x16 f32x16_abs(f32x16 a) { return (f32x16)V4_MAP(vabsq_f32, a); }

/* ---- a register of floats: what sums of float weights are made of ----------------------------------------------- */

#define F32V 4

typedef float32x4_t f32v;

IQ_INLINE f32v f32v_zero(void) { return vdupq_n_f32(0.0f); }
IQ_INLINE f32v f32v_load(const void *p) { return vld1q_f32((const float *)p); }
IQ_INLINE f32v f32v_load_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
IQ_INLINE f32v f32v_load_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(p)), 16));
}
IQ_INLINE f32v f32v_fma(f32v a, f32v b, f32v c) { return vfmaq_f32(c, a, b); } /* a * b + c */
IQ_INLINE float f32v_reduce_add(f32v a) { return vaddvq_f32(a); }

/* ---- 16 int32 --------------------------------------------------------------------------------------------------- */

typedef struct {
    int32x4_t v[4];
} i32x16;

IQ_INLINE f32x16 i32x16_f32(i32x16 a) { return (f32x16)V4_MAP(vcvtq_f32_s32, a); }
IQ_INLINE int32x4_t abs_bits(float32x4_t a) { return vandq_s32(vreinterpretq_s32_f32(a), vdupq_n_s32(0x7fffffff)); }
IQ_INLINE i32x16 i32x16_abs_bits(f32x16 a) { return (i32x16)V4_MAP(abs_bits, a); }
IQ_INLINE uint32_t i32x16_reduce_max2(i32x16 a, i32x16 b) {
    const i32x16 m = V4_MAP2(vmaxq_s32, a, b);
    return (uint32_t)vmaxvq_s32(vmaxq_s32(vmaxq_s32(m.v[0], m.v[1]), vmaxq_s32(m.v[2], m.v[3])));
}
/* round(a), ties to even, as int8; |a| < 128 */
IQ_INLINE void f32x16_store_i8(int8_t *p, f32x16 a) {
    const i32x16 x = V4_MAP(vcvtnq_s32_f32, a);
    const int16x8_t low = vcombine_s16(vmovn_s32(x.v[0]), vmovn_s32(x.v[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(x.v[2]), vmovn_s32(x.v[3]));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

/* The same address, unknown to the compiler: what is read from it is kept in a register or read again with one load,
 * where a constant of the program would take two instructions each time. */
IQ_INLINE const void *opaque(const void *p) {
#if defined(__GNUC__)
    __asm__("" : "+r"(p));
#endif
    return p;
}

/* ---- 64 codes --------------------------------------------------------------------------------------------------- */

/* Four slots of 16. Register c holds bytes 4c .. 4c + 3 of each of the four: so ld4 reads them, and so four dot
 * products on top of each other give the sums of the four slots, with nothing left to add up across lanes. */
typedef struct {
    uint8x16_t v[4];
} lanes64;

#define V4_U8(f, ...) vreinterpretq_u8_u32(f(__VA_ARGS__))

/* In place, for registers that hold a slot each: dword c of register r goes to dword r of register c; and back. */
IQ_INLINE void transpose4(float32x4_t r[4]) {
    const float32x4_t a = vtrn1q_f32(r[0], r[1]), b = vtrn2q_f32(r[0], r[1]);
    const float32x4_t c = vtrn1q_f32(r[2], r[3]), d = vtrn2q_f32(r[2], r[3]);
    const float64x2_t e = vreinterpretq_f64_f32(a), f = vreinterpretq_f64_f32(b);
    const float64x2_t g = vreinterpretq_f64_f32(c), h = vreinterpretq_f64_f32(d);
    r[0] = vreinterpretq_f32_f64(vtrn1q_f64(e, g)), r[1] = vreinterpretq_f32_f64(vtrn1q_f64(f, h));
    r[2] = vreinterpretq_f32_f64(vtrn2q_f64(e, g)), r[3] = vreinterpretq_f32_f64(vtrn2q_f64(f, h));
}
IQ_INLINE lanes64 v_transpose(lanes64 a) {
    float32x4_t r[4];
    for (int i = 0; i < 4; i++) r[i] = vreinterpretq_f32_u8(a.v[i]);
    transpose4(r);
    for (int i = 0; i < 4; i++) a.v[i] = vreinterpretq_u8_f32(r[i]);
    return a;
}
IQ_INLINE lanes64 v_load(const void *p) {
    const uint32x4x4_t x = vld4q_u32(p);
    return (lanes64)V4(vreinterpretq_u8_u32(x.val[0]), vreinterpretq_u8_u32(x.val[1]), vreinterpretq_u8_u32(x.val[2]),
                       vreinterpretq_u8_u32(x.val[3]));
}
/* Unlike vshrq_n, a count that need not be a literal; negative: to the right. */
#if defined(__GNUC__)
IQ_INLINE uint8x16_t shift8(uint8x16_t a, int n) { return n < 0 ? a >> -n : a << n; }
#else
IQ_INLINE uint8x16_t shift8(uint8x16_t a, int n) { return vshlq_u8(a, vdupq_n_s8((int8_t)n)); }
#endif
/* 32 bytes twice, the second copy shifted right by n; bits n positions from each byte's top are undefined. */
IQ_INLINE lanes64 v_load32_twice(const void *p, int n) {
    const uint32x2x4_t x = vld4_u32(p);
    const int8_t m = (int8_t)-n;
    const int8x16_t shift = {0, 0, 0, 0, 0, 0, 0, 0, m, m, m, m, m, m, m, m};
    lanes64 out;
    for (int i = 0; i < 4; i++) {
        out.v[i] = vshlq_u8(V4_U8(vreinterpretq_u32_u64, vdupq_lane_u64(vreinterpret_u64_u32(x.val[i]), 0)), shift);
    }
    return out;
}
/* 16 bytes at p, p + stride, p + 2 stride, p + 3 stride */
IQ_INLINE lanes64 v_load16x4(const uint8_t *p, size_t stride) {
    lanes64 out;
    for (size_t i = 0; i < 4; i++) out.v[i] = vld1q_u8(p + i * stride);
    return v_transpose(out);
}
/* 16 bytes four times, copy k shifted right by 2k; the upper bits of each byte are undefined. */
IQ_INLINE lanes64 v_load16_fan(const void *p) {
    const int8x16_t shift = {0, 0, 0, 0, -2, -2, -2, -2, -4, -4, -4, -4, -6, -6, -6, -6};
    const uint32x4_t x = vreinterpretq_u32_u8(vld1q_u8(p));
    return (lanes64)V4(vshlq_u8(V4_U8(vdupq_laneq_u32, x, 0), shift), vshlq_u8(V4_U8(vdupq_laneq_u32, x, 1), shift),
                       vshlq_u8(V4_U8(vdupq_laneq_u32, x, 2), shift), vshlq_u8(V4_U8(vdupq_laneq_u32, x, 3), shift));
}
/* 8 bytes at p, p + stride, ... twice each, the second copy shifted right by n; its upper bits are undefined. */
IQ_INLINE lanes64 v_load8x4_twice(const uint8_t *p, size_t stride, int n) {
    lanes64 out;
    for (int i = 0; i < 4; i++) {
        const uint8x8_t x = vld1_u8(p + stride * (size_t)i);
        out.v[i] = vcombine_u8(x, vshl_u8(x, vdup_n_s8((int8_t)-n)));
    }
    return v_transpose(out);
}
IQ_INLINE lanes64 v_load32x2(const uint8_t *a, const uint8_t *b) {
    const uint32x2x4_t x = vld4_u32((const uint32_t *)(const void *)a), y = vld4_u32((const uint32_t *)(const void *)b);
    return (lanes64)V4(V4_U8(vcombine_u32, x.val[0], y.val[0]), V4_U8(vcombine_u32, x.val[1], y.val[1]),
                       V4_U8(vcombine_u32, x.val[2], y.val[2]), V4_U8(vcombine_u32, x.val[3], y.val[3]));
}
IQ_INLINE lanes64 v_set1(int value) {
    const uint8x16_t x = vdupq_n_u8((uint8_t)value);
    return (lanes64)V4(x, x, x, x);
}
IQ_INLINE lanes64 v_and(lanes64 a, int mask) { return (lanes64)V4_MAP1(vandq_u8, a, vdupq_n_u8((uint8_t)mask)); }
IQ_INLINE lanes64 v_or(lanes64 a, lanes64 b) { return (lanes64)V4_MAP2(vorrq_u8, a, b); }
IQ_INLINE lanes64 v_add(lanes64 a, lanes64 b) { return (lanes64)V4_MAP2(vaddq_u8, a, b); }
/* Shifts within bytes; the n bits shifted in are undefined: mask them, or look up with a table that ignores them. */
IQ_INLINE lanes64 v_shr(lanes64 a, int n) { return n ? (lanes64)V4_MAP1(shift8, a, -n) : a; }
IQ_INLINE lanes64 v_shl(lanes64 a, int n) { return n ? (lanes64)V4_MAP1(shift8, a, n) : a; }
IQ_INLINE lanes64 v_low4(lanes64 a) { return v_and(a, 15); }
IQ_INLINE lanes64 v_high4(lanes64 a) { return (lanes64)V4_MAP1(vshrq_n_u8, a, 4); }
/* As low4 and high4, but fit only as an index of a table: the other bits are undefined where that is cheaper. */
IQ_INLINE lanes64 v_index_low4(lanes64 a) { return v_low4(a); }
IQ_INLINE lanes64 v_index_high4(lanes64 a) { return v_high4(a); }
/* An index of n bits: those of mask from a (less than 1 << n), the others from b. */
IQ_INLINE lanes64 v_index(lanes64 a, int mask, lanes64 b, int n) {
    const uint8x16_t from_b = vdupq_n_u8((uint8_t)(((1 << n) - 1) & ~mask));
    for (int i = 0; i < 4; i++) a.v[i] = vbslq_u8(from_b, b.v[i], a.v[i]);
    return a;
}
/* 16-bit words: bit 0 cleared, then t ^ t >> 1 (the code of IQ4_KSS). */
IQ_INLINE uint8x16_t gray16(uint8x16_t a) {
    const uint16x8_t t = vandq_u16(vreinterpretq_u16_u8(a), vdupq_n_u16(0xfffe));
    return vreinterpretq_u8_u16(veorq_u16(t, vshrq_n_u16(t, 1)));
}
IQ_INLINE lanes64 v_gray16(lanes64 a) { return (lanes64)V4_MAP(gray16, a); }
/* Bit 0 of each of the 64 16-bit words of 128 bytes. */
IQ_INLINE uint64_t low_bits_of_words(const uint8_t *p) {
    const int8x16_t position = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};
    const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t x[4];
    for (int i = 0; i < 4; i++) {
        const uint8x16_t low = vuzp1q_u8(vld1q_u8(p + 32 * i), vld1q_u8(p + 32 * i + 16));
        x[i] = vandq_u8(vshlq_u8(low, position), bit);
    }
    const uint8x16_t sums = vpaddq_u8(vpaddq_u8(x[0], x[1]), vpaddq_u8(x[2], x[3]));
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
}
/* 64 bits, one per code in order: `value` where set, else 0. */
IQ_INLINE lanes64 v_from_bits(uint64_t bits, int value) {
    const uint8x16_t byte = {0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6};
    const uint8x16_t bit = {1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8};
    const uint8x16_t words = vreinterpretq_u8_u64(vdupq_n_u64(bits));
    lanes64 out;
    for (int i = 0; i < 4; i++) {
        const uint8x16_t set = vqtbl1q_u8(words, vaddq_u8(byte, vdupq_n_u8((uint8_t)(i / 2))));
        out.v[i] = vandq_u8(vtstq_u8(set, shift8(bit, 4 * (i % 2))), vdupq_n_u8((uint8_t)value));
    }
    return out;
}

/* Codebooks; u7: values 0..127, s8: signed values, plus LANE_BIAS. */
typedef uint8x16_t lut16;
typedef uint8x16x2_t lut32;
typedef uint8x16x4_t lut64;

IQ_INLINE lanes64 v_signed(lanes64 a) { return a; }
IQ_INLINE lut16 lut16_u7(const int8_t *t) { return vld1q_u8(opaque(t)); }
IQ_INLINE lut16 lut16_s8(const int8_t *t) { return lut16_u7(t); }
IQ_INLINE lut32 lut32_u7(const int8_t *t) { return vld1q_u8_x2(opaque(t)); }
IQ_INLINE lut32 lut32_s8(const int8_t *t) { return lut32_u7(t); }
IQ_INLINE lut64 lut64_s8(const int8_t *t) { return vld1q_u8_x4(opaque(t)); }
IQ_INLINE lanes64 v_lut16(lut16 t, lanes64 i) {
    return (lanes64)V4(vqtbl1q_u8(t, i.v[0]), vqtbl1q_u8(t, i.v[1]), vqtbl1q_u8(t, i.v[2]), vqtbl1q_u8(t, i.v[3]));
}
IQ_INLINE lanes64 v_lut32(lut32 t, lanes64 i) {
    return (lanes64)V4(vqtbl2q_u8(t, i.v[0]), vqtbl2q_u8(t, i.v[1]), vqtbl2q_u8(t, i.v[2]), vqtbl2q_u8(t, i.v[3]));
}
IQ_INLINE lanes64 v_lut64(lut64 t, lanes64 i) {
    return (lanes64)V4(vqtbl4q_u8(t, i.v[0]), vqtbl4q_u8(t, i.v[1]), vqtbl4q_u8(t, i.v[2]), vqtbl4q_u8(t, i.v[3]));
}

/* ---- dot products ----------------------------------------------------------------------------------------------- */

/* The sums of the four slots of 64 codes times 64 activations; with sdot as they are, else in halves. `i8`: the codes
 * may be -128 too. */
typedef struct {
    int32x4_t v[2];
} chunk_sums;

#if IQ_NEON_DOTPROD
#if defined(__clang__) && !defined(__ARM_FEATURE_DOTPROD)
/* This clang declares vdotq_s32 only if the whole file is compiled for it. */
IQ_INLINE int32x4_t sdot(int32x4_t acc, int8x16_t a, int8x16_t b) {
    __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(a), "w"(b));
    return acc;
}
#else
IQ_INLINE int32x4_t sdot(int32x4_t acc, int8x16_t a, int8x16_t b) { return vdotq_s32(acc, a, b); }
#endif
IQ_INLINE chunk_sums chunk_add(chunk_sums sums, lanes64 codes, lanes64 q, bool i8) {
    (void)i8;
    for (int c = 0; c < 4; c++) {
        sums.v[0] = sdot(sums.v[0], vreinterpretq_s8_u8(codes.v[c]), vreinterpretq_s8_u8(q.v[c]));
    }
    return sums;
}
IQ_INLINE int32x4_t chunk_slots(chunk_sums sums) { return sums.v[0]; }
#else
/* Two products of at most 127 * 128 fit int16; -128 * -128 twice does not. */
IQ_INLINE int16x8_t half_products(int8x16_t a, int8x16_t x, bool high) {
    return high ? vmull_high_s8(a, x) : vmull_s8(vget_low_s8(a), vget_low_s8(x));
}
IQ_INLINE int32x4_t add_products(int32x4_t acc, int8x16_t a, int8x16_t x, int8x16_t b, int8x16_t y, bool high,
                                 bool i8) {
    const int16x8_t first = half_products(a, x, high);
    if (i8) return vpadalq_s16(vpadalq_s16(acc, first), half_products(b, y, high));
    if (high) return vpadalq_s16(acc, vmlal_high_s8(first, b, y));
    return vpadalq_s16(acc, vmlal_s8(first, vget_low_s8(b), vget_low_s8(y)));
}
IQ_INLINE int32x4_t add_both_halves(int32x4_t acc, int8x16_t a, int8x16_t x, bool i8) {
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(x));
    if (!i8) return vpadalq_s16(acc, vmlal_high_s8(low, a, x));
    return vpadalq_s16(vpadalq_s16(acc, low), vmull_high_s8(a, x));
}
IQ_INLINE chunk_sums chunk_add(chunk_sums sums, lanes64 codes, lanes64 q, bool i8) {
    IQ_UNROLL
    for (int c = 0; c < 4; c += 2) {
        const int8x16_t a = vreinterpretq_s8_u8(codes.v[c]), b = vreinterpretq_s8_u8(codes.v[c + 1]);
        const int8x16_t x = vreinterpretq_s8_u8(q.v[c]), y = vreinterpretq_s8_u8(q.v[c + 1]);
        sums.v[0] = add_products(sums.v[0], a, x, b, y, false, i8);
        sums.v[1] = add_products(sums.v[1], a, x, b, y, true, i8);
    }
    return sums;
}
IQ_INLINE int32x4_t chunk_slots(chunk_sums sums) { return vpaddq_s32(sums.v[0], sums.v[1]); }
#endif
/* acc += 16 products, each four to a lane with sdot, else any; codes of -128 too */
IQ_INLINE int32x4_t add_16(int32x4_t acc, int8x16_t a, int8x16_t x) {
#if IQ_NEON_DOTPROD
    return sdot(acc, a, x);
#else
    return add_both_halves(acc, a, x, true);
#endif
}
IQ_INLINE chunk_sums chunk_zero(void) { return (chunk_sums){{vdupq_n_s32(0), vdupq_n_s32(0)}}; }

/* As the other instruction sets have them, for the sums of activations */
typedef int32x4_t dot64;

IQ_INLINE dot64 v_dot_u7(lanes64 codes, lanes64 q) { return chunk_slots(chunk_add(chunk_zero(), codes, q, false)); }
IQ_INLINE i32x16 v_slot_sums(dot64 a, dot64 b, dot64 c, dot64 d) { /* in lane order */
    const lanes64 x = V4(vreinterpretq_u8_s32(a), vreinterpretq_u8_s32(b), vreinterpretq_u8_s32(c),
                         vreinterpretq_u8_s32(d));
    const lanes64 lanes = v_transpose(x);
    return (i32x16)V4_MAP(vreinterpretq_s32_u8, lanes);
}

/* ---- one small integer per slot --------------------------------------------------------------------------------- */

/* Here vectors of slots stand in the order of the slots: register j belongs to chunk j. What iq_q8_block holds in lane
 * order is read with ld4. */
IQ_INLINE f32x16 slots_load(const float *lanes) {
    const float32x4x4_t x = vld4q_f32(lanes);
    return (f32x16)V4(x.val[0], x.val[1], x.val[2], x.val[3]);
}
/* clang-format off */
#define IQ_SLOTS_NATURAL(f)  f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
#define IQ_SLOTS_HALVES(f)   f(0) f(1) f(8) f(9) f(2) f(3) f(10) f(11) f(4) f(5) f(12) f(13) f(6) f(7) f(14) f(15)
#define IQ_SLOTS_NIBBLE16(f) f(0) f(2) f(4) f(6) f(1) f(3) f(5) f(7) f(8) f(10) f(12) f(14) f(9) f(11) f(13) f(15)
#define IQ_SLOTS_NIBBLE32(f) f(0) f(1) f(4) f(5) f(2) f(3) f(6) f(7) f(8) f(9) f(12) f(13) f(10) f(11) f(14) f(15)
#define IQ_SLOTS_PAIRS(f)    f(0) f(4) f(8) f(12) f(1) f(5) f(9) f(13) f(2) f(6) f(10) f(14) f(3) f(7) f(11) f(15)
/* clang-format on */
#define IQ_SLOT_TABLE(f)                                                                                               \
    {                                                                                                                  \
        {IQ_SLOTS_NATURAL(f)}, {IQ_SLOTS_HALVES(f)}, {IQ_SLOTS_NIBBLE16(f)}, {IQ_SLOTS_NIBBLE32(f)}, {                 \
            IQ_SLOTS_PAIRS(f)                                                                                          \
        }                                                                                                              \
    }

typedef uint8x16_t slots; /* bytes in lane order; arithmetic modulo 256 */

/* 8 or 4 bytes at the bottom of a vector */
IQ_INLINE uint8x16_t word_bytes(uint64_t word) {
    return vreinterpretq_u8_u64(vcombine_u64(vcreate_u64(word), vcreate_u64(0)));
}
IQ_INLINE uint8x16_t half_word_bytes(uint32_t word) { return word_bytes(word); }
/* Fields of two or four bits: the byte of each lane, shifted until the field stands at the bottom (or at bit 4). */
#define IQ_SLOT_NIBBLE_BYTE(n) (n) / 2,
#define IQ_SLOT_NIBBLE_SHIFT(n) -4 * ((n) % 2),
#define IQ_SLOT_CRUMB_BYTE(n) (n) / 4,
#define IQ_SLOT_CRUMB_SHIFT(n) 4 - 2 * ((n) % 4),
alignas(16) IQ_TABLE uint8_t slot_nibble_byte[IQ_ORDERS][IQ_SLOTS] = IQ_SLOT_TABLE(IQ_SLOT_NIBBLE_BYTE);
alignas(16) IQ_TABLE int8_t slot_nibble_shift[IQ_ORDERS][IQ_SLOTS] = IQ_SLOT_TABLE(IQ_SLOT_NIBBLE_SHIFT);
alignas(16) IQ_TABLE uint8_t slot_crumb_byte[IQ_ORDERS][IQ_SLOTS] = IQ_SLOT_TABLE(IQ_SLOT_CRUMB_BYTE);
alignas(16) IQ_TABLE int8_t slot_crumb_shift[IQ_ORDERS][IQ_SLOTS] = IQ_SLOT_TABLE(IQ_SLOT_CRUMB_SHIFT);
alignas(16) IQ_TABLE uint8_t slot_byte[IQ_ORDERS][IQ_SLOTS] = IQ_SLOT_TABLE(IQ_LANE_SELF);
alignas(16) IQ_TABLE int32_t slot_bit[IQ_ORDERS][IQ_SLOTS] = IQ_SLOT_TABLE(IQ_LANE_BIT);
IQ_INLINE slots slots_nibbles(uint64_t word, iq_slot_order order) {
    const uint8x16_t bytes = vqtbl1q_u8(word_bytes(word), vld1q_u8(opaque(slot_nibble_byte[order])));
    return vandq_u8(vshlq_u8(bytes, vld1q_s8(opaque(slot_nibble_shift[order]))), vdupq_n_u8(15));
}
/* At bit 4; the other bits are undefined. */
IQ_INLINE uint8x16_t crumbs_at_4(uint32_t word, iq_slot_order order) {
    const uint8x16_t bytes = vqtbl1q_u8(half_word_bytes(word), vld1q_u8(opaque(slot_crumb_byte[order])));
    return vshlq_u8(bytes, vld1q_s8(opaque(slot_crumb_shift[order])));
}
/* What belongs to a 32-block has one lane per pair of slots, in the order that costs the dot products least: its slots
 * stand side by side, or 4 apart where that of the lower and that of the upper nibbles make a pair. */
#define IQ_PAIRS_IN_ORDER(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7)
#define IQ_PAIRS_HALVES(f) f(0) f(4) f(1) f(5) f(2) f(6) f(3) f(7)
#define IQ_PAIRS_NIBBLE32(f) f(0) f(2) f(1) f(3) f(4) f(6) f(5) f(7)
#define IQ_PAIRS_PAIRS(f) f(0) f(2) f(4) f(6) f(1) f(3) f(5) f(7)
#define IQ_PAIR_TABLE(f)                                                                                               \
    {                                                                                                                  \
        {IQ_PAIRS_IN_ORDER(f)}, {IQ_PAIRS_HALVES(f)}, {IQ_PAIRS_IN_ORDER(f)}, {IQ_PAIRS_NIBBLE32(f)}, {                \
            IQ_PAIRS_PAIRS(f)                                                                                          \
        }                                                                                                              \
    }
alignas(16) IQ_TABLE uint8_t pair_block8[IQ_ORDERS][16] = IQ_PAIR_TABLE(IQ_LANE_SELF);
alignas(16) IQ_TABLE int32_t pair_block_bit[IQ_ORDERS][8] = IQ_PAIR_TABLE(IQ_LANE_BIT);
alignas(16) IQ_TABLE uint8_t pair_nibble_byte[IQ_ORDERS][16] = IQ_PAIR_TABLE(IQ_SLOT_NIBBLE_BYTE);
alignas(16) IQ_TABLE int8_t pair_nibble_shift[IQ_ORDERS][16] = IQ_PAIR_TABLE(IQ_SLOT_NIBBLE_SHIFT);
alignas(16) IQ_TABLE uint8_t pair_crumb_byte[IQ_ORDERS][16] = IQ_PAIR_TABLE(IQ_SLOT_CRUMB_BYTE);
alignas(16) IQ_TABLE int8_t pair_crumb_shift[IQ_ORDERS][16] = IQ_PAIR_TABLE(IQ_SLOT_CRUMB_SHIFT);
IQ_INLINE slots pair_lanes(uint8x16_t blocks, iq_slot_order order) {
    if (order == IQ_ORDER_NATURAL || order == IQ_ORDER_NIBBLE16) return blocks;
    return vqtbl1q_u8(blocks, vld1q_u8(opaque(pair_block8[order])));
}
/* The same of floats of all slots: those of the first slots, of the second, their sums; `apart`: 1 or 4 */
typedef struct {
    float32x4_t v[2];
} f32x8;

IQ_INLINE f32x8 pair_first(f32x16 a, int apart) {
    if (apart == 4) return (f32x8){{a.v[0], a.v[2]}};
    return (f32x8){{vuzp1q_f32(a.v[0], a.v[1]), vuzp1q_f32(a.v[2], a.v[3])}};
}
IQ_INLINE f32x8 pair_second(f32x16 a, int apart) {
    if (apart == 4) return (f32x8){{a.v[1], a.v[3]}};
    return (f32x8){{vuzp2q_f32(a.v[0], a.v[1]), vuzp2q_f32(a.v[2], a.v[3])}};
}
IQ_INLINE f32x8 pair_sums(f32x16 a, int apart) {
    if (apart == 4) return (f32x8){{vaddq_f32(a.v[0], a.v[1]), vaddq_f32(a.v[2], a.v[3])}};
    return (f32x8){{vpaddq_f32(a.v[0], a.v[1]), vpaddq_f32(a.v[2], a.v[3])}};
}
IQ_INLINE slots slots_pair_bytes(uint64_t word, iq_slot_order order) { return pair_lanes(word_bytes(word), order); }
IQ_INLINE slots slots_pair_nibbles(uint32_t word, iq_slot_order order) {
    const uint8x16_t bytes = vqtbl1q_u8(half_word_bytes(word), vld1q_u8(opaque(pair_nibble_byte[order])));
    return vandq_u8(vshlq_u8(bytes, vld1q_s8(opaque(pair_nibble_shift[order]))), vdupq_n_u8(15));
}
IQ_INLINE slots slots_pair_crumbs(uint32_t word, iq_slot_order order) {
    const uint8x16_t bytes = vqtbl1q_u8(half_word_bytes(word), vld1q_u8(opaque(pair_crumb_byte[order])));
    const int8x16_t shift = vsubq_s8(vld1q_s8(opaque(pair_crumb_shift[order])), vdupq_n_s8(4));
    return vandq_u8(vshlq_u8(bytes, shift), vdupq_n_u8(3));
}
IQ_INLINE slots slots_bytes(const void *p, iq_slot_order order) {
    return vqtbl1q_u8(vld1q_u8(p), vld1q_u8(opaque(slot_byte[order])));
}
IQ_INLINE slots slots_words(uint64_t low, uint64_t high, iq_slot_order order) { /* 16 bytes in natural order */
    const uint64x2_t words = vcombine_u64(vcreate_u64(low), vcreate_u64(high));
    return vqtbl1q_u8(vreinterpretq_u8_u64(words), vld1q_u8(opaque(slot_byte[order])));
}
IQ_INLINE slots slots_and(slots a, int mask) { return vandq_u8(a, vdupq_n_u8((uint8_t)mask)); }
IQ_INLINE slots slots_shr(slots a, int n) { return shift8(a, -n); } /* of values 0..255 */
IQ_INLINE slots slots_add(slots a, int b) { return vaddq_u8(a, vdupq_n_u8((uint8_t)b)); }
IQ_INLINE slots slots_join(slots low, slots high, int shift) { /* low + (high << shift), no overlap */
    return vorrq_u8(low, shift8(high, shift));
}
IQ_INLINE f32x16 slots_f32(slots a) {
    const int8x16_t x = vreinterpretq_s8_u8(a);
    const int16x8_t low = vmovl_s8(vget_low_s8(x)), high = vmovl_high_s8(x);
    return (f32x16)V4(vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
                      vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high)));
}
IQ_INLINE f32x16 choose_bits(uint32_t word, int first, const int32_t *lane_bit, int n, f32x16 a, f32x16 b) {
    const int32x4_t x = vshlq_s32(vdupq_n_s32((int32_t)word), vdupq_n_s32(-first));
    const int32_t *bits = opaque(lane_bit);
    for (int i = 0; i < n; i++) a.v[i] = vbslq_f32(vtstq_s32(x, vld1q_s32(bits + 4 * i)), b.v[i], a.v[i]);
    return a;
}
/* b in the lanes whose bit of word is set, else a; bit first + n is that of sub-block (32-block) n */
IQ_INLINE f32x16 slots_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    return choose_bits(word, first, slot_bit[order], 4, a, b);
}
IQ_INLINE f32x16 slots_pair_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    return choose_bits(word, first, pair_block_bit[order], 2, a, b);
}
IQ_INLINE f32x16 slots_odd_choose(slots s, f32x16 a, f32x16 b) {
    const int8x16_t odd = vreinterpretq_s8_u8(vtstq_u8(s, vdupq_n_u8(1)));
    const int16x8_t low = vmovl_s8(vget_low_s8(odd)), high = vmovl_high_s8(odd);
    const i32x16 mask =
        V4(vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high));
    for (int i = 0; i < 4; i++) a.v[i] = vbslq_f32(vreinterpretq_u32_s32(mask.v[i]), b.v[i], a.v[i]);
    return a;
}
/* Through a table of 16 values */
IQ_INLINE f32x16 slots_nibble_values(uint64_t word, iq_slot_order order, const nibble_values *values) {
    return slots_f32(vqtbl1q_u8(vld1q_u8((const uint8_t *)values->i8), slots_nibbles(word, order)));
}
/* nibble + 16 * crumb - 32 */
IQ_INLINE f32x16 slots_6bit_values(uint64_t nibbles, uint32_t crumbs, iq_slot_order order) {
    const uint8x16_t high = crumbs_at_4(crumbs, order), low = slots_nibbles(nibbles, order);
    return slots_f32(slots_add(vbslq_u8(vdupq_n_u8(48), high, low), -32));
}
/* One fp16 per 32-block, `stride` bytes apart, to the lanes. */
IQ_INLINE f32x16 slots_pair_f16(const uint8_t *p, size_t stride, iq_slot_order order) {
    uint64_t words[2] = {0, 0};
    for (int i = 0; i < 8; i++) words[i / 4] |= (uint64_t)iq_load_u16(p + stride * pair_block8[order][i]) << i % 4 * 16;
    const float16x4_t low = vreinterpret_f16_u64(vcreate_u64(words[0]));
    const float16x4_t high = vreinterpret_f16_u64(vcreate_u64(words[1]));
    return (f32x16)V4(vcvt_f32_f16(low), vcvt_f32_f16(high), vdupq_n_f32(0.0f), vdupq_n_f32(0.0f));
}

/* 16 floats of each of 16 rows to 16 vectors over the rows */
IQ_INLINE void tile_store_f32(float *out, f32x16 rows[16]) {
    for (int part = 0; part < 16; part++) {
        const int quarter = part / 4, first_row = part % 4 * 4;
        float32x4_t r[4];
        for (int i = 0; i < 4; i++) r[i] = rows[first_row + i].v[quarter];
        transpose4(r);
        for (int i = 0; i < 4; i++) vst1q_f32(out + 16 * (4 * quarter + i) + first_row, r[i]);
    }
}

/* ---- q8_0 keys and values (kernel/attention_q8.inc.h) ------------------------------------------------------------ */

#define KV_BIAS 0 /* what kv_load_k adds to the codes */

IQ_INLINE i32x16 i32x16_set1(int32_t a) {
    const int32x4_t x = vdupq_n_s32(a);
    return (i32x16)V4(x, x, x, x);
}
/* round(a), ties to even, as int16; |a| <= 32767, a NaN becomes any number */
IQ_INLINE void f32x16_store_i16(int16_t *p, f32x16 a) {
    const i32x16 x = V4_MAP(vcvtnq_s32_f32, a);
    vst1q_s16(p, vmovn_high_s32(vmovn_s32(x.v[0]), x.v[1]));
    vst1q_s16(p + 8, vmovn_high_s32(vmovn_s32(x.v[2]), x.v[3]));
}
typedef struct {
    int8x16_t v[4];
} kv_codes;
typedef struct {
    int16x8_t v[2][2]; /* [position][8 columns] */
} kv_pairs;

IQ_INLINE kv_codes kv_load_k(const uint8_t *p) { /* 16 positions x 4 columns, in memory's order (v_load's is another) */
    const int8_t *k = (const int8_t *)p;
    return (kv_codes)V4(vld1q_s8(k), vld1q_s8(k + 16), vld1q_s8(k + 32), vld1q_s8(k + 48));
}
IQ_INLINE kv_pairs kv_load_v(const uint8_t *p) { /* 16 columns x 2 positions */
    const int8x16x2_t x = vld2q_s8((const int8_t *)p);
    return (kv_pairs){{{vmovl_s8(vget_low_s8(x.val[0])), vmovl_high_s8(x.val[0])},
                       {vmovl_s8(vget_low_s8(x.val[1])), vmovl_high_s8(x.val[1])}}};
}
/* acc[position] += 4 codes of the position times q[0 .. 3] */
IQ_INLINE i32x16 kv_dot4(i32x16 acc, kv_codes k, const int8_t *q) {
    const int8x16_t q4 = vreinterpretq_s8_u32(vdupq_n_u32(iq_load_u32(q)));
#if IQ_NEON_DOTPROD
    for (int i = 0; i < 4; i++) acc.v[i] = sdot(acc.v[i], k.v[i], q4);
#else
    for (int i = 0; i < 4; i++) { /* two products of -128 * 127 fit int16 */
        const int16x8_t low = vmull_s8(vget_low_s8(k.v[i]), vget_low_s8(q4)), high = vmull_high_s8(k.v[i], q4);
        acc.v[i] = vpadalq_s16(acc.v[i], vpaddq_s16(low, high));
    }
#endif
    return acc;
}
/* acc[column] += the codes of two positions times w[0], w[1] */
IQ_INLINE i32x16 kv_dot2(i32x16 acc, kv_pairs v, const int16_t *w) {
    for (int p = 0; p < 2; p++) {
        const int16x8_t x = vdupq_n_s16(w[p]);
        for (int i = 0; i < 2; i++) {
            acc.v[2 * i] = vmlal_s16(acc.v[2 * i], vget_low_s16(v.v[p][i]), vget_low_s16(x));
            acc.v[2 * i + 1] = vmlal_high_s16(acc.v[2 * i + 1], v.v[p][i], x);
        }
    }
    return acc;
}

#endif
