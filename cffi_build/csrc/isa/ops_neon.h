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

/* ---- 64 codes --------------------------------------------------------------------------------------------------- */

typedef struct {
    uint8x16_t v[4];
} lanes64;

IQ_INLINE lanes64 v_load(const void *p) {
    const uint8_t *b = p;
    return (lanes64)V4(vld1q_u8(b), vld1q_u8(b + 16), vld1q_u8(b + 32), vld1q_u8(b + 48));
}
/* A shift by a negative count goes right: unlike vshrq_n, it need not be a literal. */
IQ_INLINE uint8x16_t shift8(uint8x16_t a, int n) { return vshlq_u8(a, vdupq_n_s8((int8_t)n)); }
/* 32 bytes twice, the second copy shifted right by n; bits n positions from each byte's top are undefined. */
IQ_INLINE lanes64 v_load32_twice(const void *p, int n) {
    const uint8x16_t a = vld1q_u8(p), b = vld1q_u8((const uint8_t *)p + 16);
    return (lanes64)V4(a, b, shift8(a, -n), shift8(b, -n));
}
/* 16 bytes at p, p + stride, p + 2 stride, p + 3 stride */
IQ_INLINE lanes64 v_load16x4(const uint8_t *p, size_t stride) {
    return (lanes64)V4(vld1q_u8(p), vld1q_u8(p + stride), vld1q_u8(p + 2 * stride), vld1q_u8(p + 3 * stride));
}
/* 16 bytes four times, copy k shifted right by 2k; the upper bits of each byte are undefined. */
IQ_INLINE lanes64 v_load16_fan(const void *p) {
    const uint8x16_t x = vld1q_u8(p);
    return (lanes64)V4(x, vshrq_n_u8(x, 2), vshrq_n_u8(x, 4), vshrq_n_u8(x, 6));
}
/* 8 bytes at p, p + stride, ... twice each, the second copy shifted right by n; its upper bits are undefined. */
IQ_INLINE lanes64 v_load8x4_twice(const uint8_t *p, size_t stride, int n) {
    lanes64 out;
    for (int i = 0; i < 4; i++) {
        const uint8x8_t x = vld1_u8(p + stride * (size_t)i);
        out.v[i] = vcombine_u8(x, vshl_u8(x, vdup_n_s8((int8_t)-n)));
    }
    return out;
}
IQ_INLINE lanes64 v_load32x2(const uint8_t *a, const uint8_t *b) {
    return (lanes64)V4(vld1q_u8(a), vld1q_u8(a + 16), vld1q_u8(b), vld1q_u8(b + 16));
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
/* An index of n bits: those of mask from a, the others from b. */
IQ_INLINE lanes64 v_index(lanes64 a, int mask, lanes64 b, int n) {
    return v_or(v_and(a, mask), v_and(b, ((1 << n) - 1) & ~mask));
}
/* 16-bit words: bit 0 cleared, then t ^ t >> 1 (the code of IQ4_KSS). */
IQ_INLINE uint8x16_t gray16(uint8x16_t a) {
    const uint16x8_t t = vandq_u16(vreinterpretq_u16_u8(a), vdupq_n_u16(0xfffe));
    return vreinterpretq_u8_u16(veorq_u16(t, vshrq_n_u16(t, 1)));
}
IQ_INLINE lanes64 v_gray16(lanes64 a) { return (lanes64)V4_MAP(gray16, a); }
/* Bit 0 of each of the 64 16-bit words of 128 bytes. */
IQ_INLINE uint64_t low_bits_of_words(const uint8_t *p) {
    const uint16x8_t weights = {1, 2, 4, 8, 16, 32, 64, 128};
    uint64_t bits = 0;
    for (int i = 0; i < 8; i++) {
        const uint16x8_t odd = vandq_u16(vreinterpretq_u16_u8(vld1q_u8(p + 16 * i)), vdupq_n_u16(1));
        bits |= (uint64_t)vaddvq_u16(vmulq_u16(odd, weights)) << 8 * i;
    }
    return bits;
}
/* 64 bits, one per lane in order: `value` where set, else 0. */
IQ_INLINE lanes64 v_from_bits(uint64_t bits, int value) {
    const uint8x16_t bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    lanes64 out;
    for (int i = 0; i < 4; i++) {
        const uint8x8_t low = vdup_n_u8((uint8_t)(bits >> 16 * i)), high = vdup_n_u8((uint8_t)(bits >> (16 * i + 8)));
        out.v[i] = vandq_u8(vtstq_u8(vcombine_u8(low, high), bit), vdupq_n_u8((uint8_t)value));
    }
    return out;
}

/* Codebooks; u7: values 0..127, s8: signed values, plus LANE_BIAS. */
typedef uint8x16_t lut16;
typedef uint8x16x2_t lut32;
typedef uint8x16x4_t lut64;

IQ_INLINE lanes64 v_signed(lanes64 a) { return a; }
IQ_INLINE lut16 lut16_u7(const int8_t *t) { return vld1q_u8((const uint8_t *)t); }
IQ_INLINE lut16 lut16_s8(const int8_t *t) { return lut16_u7(t); }
IQ_INLINE lut32 lut32_u7(const int8_t *t) { return (lut32){{lut16_u7(t), lut16_u7(t + 16)}}; }
IQ_INLINE lut32 lut32_s8(const int8_t *t) { return lut32_u7(t); }
IQ_INLINE lut64 lut64_s8(const int8_t *t) {
    return (lut64){{lut16_u7(t), lut16_u7(t + 16), lut16_u7(t + 32), lut16_u7(t + 48)}};
}
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

/* The products of 64 codes with 64 activations, summed within slots as far as is free. */
typedef struct {
    int32x4_t v[4];
} dot64;

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
IQ_INLINE int32x4_t dot16(uint8x16_t codes, uint8x16_t q) {
    return sdot(vdupq_n_s32(0), vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(q));
}
IQ_INLINE int32x4_t dot16_i8(uint8x16_t codes, uint8x16_t q) { return dot16(codes, q); }
#else
/* Two products of at most 127 * 128 fit int16. */
IQ_INLINE int32x4_t dot16(uint8x16_t codes, uint8x16_t q) {
    const int8x16_t a = vreinterpretq_s8_u8(codes), b = vreinterpretq_s8_u8(q);
    return vpaddlq_s16(vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b));
}
/* -128 * -128 twice does not. */
IQ_INLINE int32x4_t dot16_i8(uint8x16_t codes, uint8x16_t q) {
    const int8x16_t a = vreinterpretq_s8_u8(codes), b = vreinterpretq_s8_u8(q);
    return vpadalq_s16(vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))), vmull_high_s8(a, b));
}
#endif

IQ_INLINE dot64 v_dot_u7(lanes64 codes, lanes64 q) { return (dot64)V4_MAP2(dot16, codes, q); }
IQ_INLINE dot64 v_dot_s8(lanes64 codes, lanes64 q) { return v_dot_u7(codes, q); }
IQ_INLINE dot64 v_dot_i8(lanes64 codes, lanes64 q) { return (dot64)V4_MAP2(dot16_i8, codes, q); }

/* Slot sums in lane order: v[k] of chunk j holds slot 4j + k. */
IQ_INLINE i32x16 v_slot_sums(dot64 a, dot64 b, dot64 c, dot64 d) {
    i32x16 sums;
    for (int k = 0; k < 4; k++) {
        sums.v[k] = vpaddq_s32(vpaddq_s32(a.v[k], b.v[k]), vpaddq_s32(c.v[k], d.v[k]));
    }
    return sums;
}

/* ---- one small integer per slot --------------------------------------------------------------------------------- */

typedef uint8x16_t slots; /* bytes in lane order; arithmetic modulo 256 */

IQ_INLINE uint8x16_t word_bytes(uint64_t word) { return vreinterpretq_u8_u64(vdupq_n_u64(word)); }
IQ_INLINE uint8x16_t nibbles_of(uint64_t word) { /* in natural order */
    const uint8x16_t x = word_bytes(word);
    return vzip1q_u8(vandq_u8(x, vdupq_n_u8(15)), vshrq_n_u8(x, 4));
}
IQ_INLINE slots slots_nibbles(uint64_t word, iq_slot_order order) {
    return vqtbl1q_u8(nibbles_of(word), vld1q_u8(lane_sub_block8[order]));
}
IQ_INLINE slots slots_crumbs(uint32_t word, iq_slot_order order) {
    return slots_nibbles(nibbles_of_crumbs(word), order);
}
IQ_INLINE slots slots_pair_bytes(uint64_t word, iq_slot_order order) {
    return vqtbl1q_u8(word_bytes(word), vld1q_u8(lane_block8[order]));
}
IQ_INLINE slots slots_pair_nibbles(uint32_t word, iq_slot_order order) {
    return vqtbl1q_u8(nibbles_of(word), vld1q_u8(lane_block8[order]));
}
IQ_INLINE slots slots_pair_crumbs(uint32_t word, iq_slot_order order) {
    return vqtbl1q_u8(nibbles_of(nibbles_of_crumbs(word)), vld1q_u8(lane_block8[order]));
}
IQ_INLINE slots slots_bytes(const void *p, iq_slot_order order) {
    return vqtbl1q_u8(vld1q_u8(p), vld1q_u8(lane_sub_block8[order]));
}
IQ_INLINE slots slots_words(uint64_t low, uint64_t high, iq_slot_order order) { /* 16 bytes in natural order */
    const uint64x2_t words = vcombine_u64(vcreate_u64(low), vcreate_u64(high));
    return vqtbl1q_u8(vreinterpretq_u8_u64(words), vld1q_u8(lane_sub_block8[order]));
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
IQ_INLINE f32x16 choose_bits(uint32_t bits, const int32_t *lane_bit, f32x16 a, f32x16 b) {
    const int32x4_t x = vdupq_n_s32((int32_t)bits);
    for (int i = 0; i < 4; i++) a.v[i] = vbslq_f32(vtstq_s32(x, vld1q_s32(lane_bit + 4 * i)), b.v[i], a.v[i]);
    return a;
}
/* b in the lanes whose bit of word is set, else a; bit first + n is that of sub-block (32-block) n */
IQ_INLINE f32x16 slots_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    return choose_bits(word >> first, lane_sub_block_bit[order], a, b);
}
IQ_INLINE f32x16 slots_pair_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    return choose_bits(word >> first, lane_block_bit[order], a, b);
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
    return slots_f32(slots_add(slots_join(slots_nibbles(nibbles, order), slots_crumbs(crumbs, order), 4), -32));
}
/* One fp16 per 32-block, `stride` bytes apart, to the lanes. */
IQ_INLINE f32x16 slots_pair_f16(const uint8_t *p, size_t stride, iq_slot_order order) {
    uint16_t h[16];
    for (int i = 0; i < 16; i++) h[i] = iq_load_u16(p + stride * (size_t)lane_block[order][i]);
    return f32x16_load_f16(h);
}

/* ---- tiles of 16 rows (gemm) ------------------------------------------------------------------------------------ */

/* A unit is 16 rows x 4 columns in four registers of 4 rows: row by row with sdot, else columns 0, 1 of the four rows
 * in the low half and columns 2, 3 in the high half, so that smull and smlal2 add up within rows. */
#define TILE_UNIT 64
#define TILE_TOKENS 2
#define TILE_X_BYTES 1

typedef struct {
    int8x16_t v[4];
} tile_w;
typedef int8x16_t tile_x;

IQ_INLINE tile_w tile_load(const uint8_t *unit) {
    const lanes64 x = v_load(unit);
    return (tile_w)V4_MAP(vreinterpretq_s8_u8, x);
}
IQ_INLINE tile_x tile_load_x(const int8_t *q) { return vld1q_s8(q); }
IQ_INLINE i32x16 tile_init(const int32_t *bias) {
    const int32x4_t zero = vdupq_n_s32(0);
    (void)bias;
    return (i32x16)V4(zero, zero, zero, zero);
}
#if IQ_NEON_DOTPROD
IQ_INLINE int8x16_t tile_q4(tile_x x, int c) {
    const int32x4_t q = vreinterpretq_s32_s8(x);
    switch (c) {
    case 0:
        return vreinterpretq_s8_s32(vdupq_laneq_s32(q, 0));
    case 1:
        return vreinterpretq_s8_s32(vdupq_laneq_s32(q, 1));
    case 2:
        return vreinterpretq_s8_s32(vdupq_laneq_s32(q, 2));
    default:
        return vreinterpretq_s8_s32(vdupq_laneq_s32(q, 3));
    }
}
IQ_INLINE int32x4_t tile_dot_quarter(int32x4_t acc, int8x16_t w, int8x16_t q) { return sdot(acc, w, q); }
IQ_INLINE uint8x16_t tile_pack(uint8x16_t rows) { return rows; }
#else
IQ_INLINE int8x16_t tile_q4(tile_x x, int c) {
    const uint8x16_t index = {0, 1, 0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3, 2, 3};
    return vqtbl1q_s8(x, vaddq_u8(index, vdupq_n_u8((uint8_t)(4 * c))));
}
/* Codes of a tile may be -128 (Q8_0): the two halves are added up in int32. */
IQ_INLINE int32x4_t tile_dot_quarter(int32x4_t acc, int8x16_t w, int8x16_t q) {
    acc = vpadalq_s16(acc, vmull_s8(vget_low_s8(w), vget_low_s8(q)));
    return vpadalq_s16(acc, vmull_high_s8(w, q));
}
IQ_INLINE uint8x16_t tile_pack(uint8x16_t rows) {
    const uint8x16_t index = {0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15};
    return vqtbl1q_u8(rows, index);
}
#endif
/* acc[row] += 4 codes of the row times activations 4c .. 4c + 3 */
IQ_INLINE i32x16 tile_dot(i32x16 acc, tile_w w, tile_x x, int c) {
    const int8x16_t q = tile_q4(x, c);
    for (int i = 0; i < 4; i++) acc.v[i] = tile_dot_quarter(acc.v[i], w.v[i], q);
    return acc;
}
/* 16 activations as tile_dot reads them */
IQ_INLINE void tile_store_x(int8_t *out, const int8_t *q) { memcpy(out, q, 16); }

/* In place: dword c of row r goes to dword r of row c. */
IQ_INLINE void transpose4(uint32x4_t r[4]) {
    const uint32x4_t a = vtrn1q_u32(r[0], r[1]), b = vtrn2q_u32(r[0], r[1]);
    const uint32x4_t c = vtrn1q_u32(r[2], r[3]), d = vtrn2q_u32(r[2], r[3]);
    const uint64x2_t e = vreinterpretq_u64_u32(a), f = vreinterpretq_u64_u32(b);
    const uint64x2_t g = vreinterpretq_u64_u32(c), h = vreinterpretq_u64_u32(d);
    r[0] = vreinterpretq_u32_u64(vtrn1q_u64(e, g)), r[1] = vreinterpretq_u32_u64(vtrn1q_u64(f, h));
    r[2] = vreinterpretq_u32_u64(vtrn2q_u64(e, g)), r[3] = vreinterpretq_u32_u64(vtrn2q_u64(f, h));
}
/* 64 codes of each of 16 rows to four units per slot, the slots `stride` bytes apart */
IQ_INLINE void tile_store(uint8_t *units, size_t stride, lanes64 rows[16]) {
    for (int part = 0; part < 16; part++) { /* 4 rows x 16 codes */
        const int quarter = part / 4, first_row = part % 4 * 4;
        uint32x4_t r[4];
        for (int i = 0; i < 4; i++) r[i] = vreinterpretq_u32_u8(rows[first_row + i].v[quarter]);
        transpose4(r);
        for (int i = 0; i < 4; i++) {
            uint8_t *unit = units + (size_t)quarter * stride + i * TILE_UNIT + first_row * 4;
            vst1q_u8(unit, tile_pack(vreinterpretq_u8_u32(r[i])));
        }
    }
}
/* 16 floats of each of 16 rows to 16 vectors over the rows */
IQ_INLINE void tile_store_f32(float *out, f32x16 rows[16]) {
    for (int part = 0; part < 16; part++) {
        const int quarter = part / 4, first_row = part % 4 * 4;
        uint32x4_t r[4];
        for (int i = 0; i < 4; i++) r[i] = vreinterpretq_u32_f32(rows[first_row + i].v[quarter]);
        transpose4(r);
        for (int i = 0; i < 4; i++) {
            vst1q_f32(out + 16 * (4 * quarter + i) + first_row, vreinterpretq_f32_u32(r[i]));
        }
    }
}
/* For each byte of chunk i: the int8 value of its slot (a small integer per lane, given as float) */
IQ_INLINE lanes64 v_spread(f32x16 lane_values, int i) {
    const uint8x16_t byte = vdupq_n_u8((uint8_t)(4 * i)); /* slot k of chunk i is lane 4k + i */
    lanes64 out;
    for (int k = 0; k < 4; k++) {
        out.v[k] = vqtbl1q_u8(vreinterpretq_u8_s32(vcvtnq_s32_f32(lane_values.v[k])), byte);
    }
    return out;
}

#endif
