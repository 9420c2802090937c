/* The vocabulary in plain C: what each word means, and what the other instruction sets are tested against. */
#ifndef IQ_ISA_OPS_PORTABLE_H
#define IQ_ISA_OPS_PORTABLE_H

#include "base/fp16.h"

#include <math.h>

#define LANE_BIAS 0
#define TILE_BIAS 0

#define EACH(n) for (int i = 0; i < (n); i++)

/* ---- 16 floats ------------------------------------------------------------------------------------------------ */

typedef struct {
    float v[16];
} f32x16;

IQ_INLINE f32x16 f32x16_load(const float *p) {
    f32x16 a;
    memcpy(a.v, p, sizeof a.v);
    return a;
}
IQ_INLINE void f32x16_store(float *p, f32x16 a) { memcpy(p, a.v, sizeof a.v); }
IQ_INLINE f32x16 f32x16_load_n(const float *p, size_t n) {
    f32x16 a = {{0}};
    memcpy(a.v, p, n * sizeof *p);
    return a;
}
IQ_INLINE void f32x16_store_n(float *p, f32x16 a, size_t n) { memcpy(p, a.v, n * sizeof *p); }
IQ_INLINE f32x16 f32x16_set1(float a) {
    f32x16 r;
    EACH(16) r.v[i] = a;
    return r;
}
IQ_INLINE f32x16 f32x16_zero(void) { return f32x16_set1(0.0f); }
IQ_INLINE f32x16 f32x16_add(f32x16 a, f32x16 b) {
    EACH(16) a.v[i] += b.v[i];
    return a;
}
IQ_INLINE f32x16 f32x16_sub(f32x16 a, f32x16 b) {
    EACH(16) a.v[i] -= b.v[i];
    return a;
}
IQ_INLINE f32x16 f32x16_mul(f32x16 a, f32x16 b) {
    EACH(16) a.v[i] *= b.v[i];
    return a;
}
IQ_INLINE f32x16 f32x16_div(f32x16 a, f32x16 b) {
    EACH(16) a.v[i] /= b.v[i];
    return a;
}
/* a * b + c, rounded twice: fmaf without the instruction is a slow function. */
IQ_INLINE f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c) {
    EACH(16) c.v[i] += a.v[i] * b.v[i];
    return c;
}
/* a > b ? x : y; with a NaN: y */
IQ_INLINE f32x16 f32x16_select_gt(f32x16 a, f32x16 b, f32x16 x, f32x16 y) {
    EACH(16) y.v[i] = a.v[i] > b.v[i] ? x.v[i] : y.v[i];
    return y;
}
/* A NaN in b is returned; a NaN in a gives b. */
IQ_INLINE f32x16 f32x16_max(f32x16 a, f32x16 b) { return f32x16_select_gt(a, b, a, b); }
IQ_INLINE f32x16 f32x16_min(f32x16 a, f32x16 b) { return f32x16_select_gt(b, a, a, b); }
IQ_INLINE float f32x16_reduce_add(f32x16 a) {
    for (int width = 8; width > 0; width /= 2) EACH(width) a.v[i] += a.v[i + width];
    return a.v[0];
}
IQ_INLINE float f32x16_reduce_max(f32x16 a) {
    for (int width = 8; width > 0; width /= 2) EACH(width) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
    return a.v[0];
}
/* Lane r = the sum (or maximum) of rows[r], n of them (4 or 16; of 4, the other lanes repeat them). */
IQ_INLINE f32x16 f32x16_row_sums(const f32x16 *rows, const int n) {
    f32x16 r;
    EACH(16) r.v[i] = f32x16_reduce_add(rows[i % n]);
    return r;
}
IQ_INLINE f32x16 f32x16_row_maxima(const f32x16 *rows, const int n) {
    f32x16 r;
    EACH(16) r.v[i] = f32x16_reduce_max(rows[i % n]);
    return r;
}
IQ_INLINE f32x16 f32x16_load_f16(const void *p) {
    f32x16 r;
    EACH(16) r.v[i] = iq_f16_to_f32(iq_load_u16((const uint8_t *)p + 2 * i));
    return r;
}
IQ_INLINE void f32x16_store_f16(void *p, f32x16 a) {
    uint16_t h[16];
    EACH(16) h[i] = iq_f32_to_f16(a.v[i]);
    memcpy(p, h, sizeof h);
}
IQ_INLINE f32x16 f32x16_splat_f16(const void *p) { return f32x16_set1(iq_f16_to_f32(iq_load_u16(p))); }
/* Eight bytes at p must be readable. */
IQ_INLINE f32x16 f32x16_splat_first_f16(const void *p) { return f32x16_splat_f16(p); }
IQ_INLINE f32x16 f32x16_load_bf16(const void *p) {
    f32x16 r;
    EACH(16) r.v[i] = iq_bf16_to_f32(iq_load_u16((const uint8_t *)p + 2 * i));
    return r;
}
/* Nearest integer, ties to even, for |a| < 2^22: adding 1.5 * 2^23 leaves no room for a fraction. */
IQ_INLINE f32x16 f32x16_round(f32x16 a) {
    EACH(16) a.v[i] = (a.v[i] + 12582912.0f) - 12582912.0f;
    return a;
}
IQ_INLINE float power_of_2(int n) { return iq_bits_to_f32((uint32_t)(n + 127) << 23); }
/* a * 2^n for integral n, |n| <= 128, in two steps so that 2^128 and subnormal results come out right; a NaN in n
 * counts as 0. */
IQ_INLINE f32x16 f32x16_scale2(f32x16 a, f32x16 n) {
    EACH(16) {
        const int k = n.v[i] >= -128.0f && n.v[i] <= 128.0f ? (int)n.v[i] : 0, first = (k - (k < 0)) / 2;
        a.v[i] = a.v[i] * power_of_2(first) * power_of_2(k - first);
    }
    return a;
}
/* a * 2^n for integral n in -126 .. 0 and a in 0.7 .. 1.5, or NaN; f32x16_abs: |a| */
IQ_INLINE f32x16 f32x16_raise2(f32x16 a, f32x16 n) {
    EACH(16) a.v[i] *= power_of_2(n.v[i] < 0.0f ? (int)n.v[i] : 0);
    return a;
}
IQ_INLINE f32x16 f32x16_abs(f32x16 a) {
    EACH(16) a.v[i] = fabsf(a.v[i]);
    return a;
}

/* ---- 16 int32 --------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t v[16];
} i32x16;

IQ_INLINE f32x16 i32x16_f32(i32x16 a) {
    f32x16 r;
    EACH(16) r.v[i] = (float)a.v[i];
    return r;
}
IQ_INLINE i32x16 i32x16_abs_bits(f32x16 a) {
    i32x16 r;
    EACH(16) r.v[i] = (int32_t)(iq_f32_to_bits(a.v[i]) & 0x7fffffffu);
    return r;
}
IQ_INLINE uint32_t i32x16_reduce_max2(i32x16 a, i32x16 b) {
    int32_t most = 0;
    EACH(16) {
        most = a.v[i] > most ? a.v[i] : most;
        most = b.v[i] > most ? b.v[i] : most;
    }
    return (uint32_t)most;
}
/* round(a), ties to even, as int8; |a| < 128 */
IQ_INLINE void f32x16_store_i8(int8_t *p, f32x16 a) {
    a = f32x16_round(a);
    EACH(16) p[i] = (int8_t)a.v[i];
}

/* ---- 64 codes --------------------------------------------------------------------------------------------------- */

typedef struct {
    uint8_t v[64];
} lanes64;

IQ_INLINE lanes64 v_load(const void *p) {
    lanes64 a;
    memcpy(a.v, p, sizeof a.v);
    return a;
}
/* 32 bytes twice, the second copy shifted right by n; bits n positions from each byte's top are undefined. */
IQ_INLINE lanes64 v_load32_twice(const void *p, int n) {
    lanes64 a;
    memcpy(a.v, p, 32);
    EACH(32) a.v[32 + i] = (uint8_t)(a.v[i] >> n);
    return a;
}
/* 16 bytes at p, p + stride, p + 2 stride, p + 3 stride */
IQ_INLINE lanes64 v_load16x4(const uint8_t *p, size_t stride) {
    lanes64 a;
    for (size_t i = 0; i < 4; i++) memcpy(a.v + 16 * i, p + stride * i, 16);
    return a;
}
/* 16 bytes four times, copy k shifted right by 2k; the upper bits of each byte are undefined. */
IQ_INLINE lanes64 v_load16_fan(const void *p) {
    lanes64 a;
    EACH(64) a.v[i] = (uint8_t)(((const uint8_t *)p)[i % 16] >> 2 * (i / 16));
    return a;
}
/* 8 bytes at p, p + stride, ... twice each, the second copy shifted right by n; its upper bits are undefined. */
IQ_INLINE lanes64 v_load8x4_twice(const uint8_t *p, size_t stride, int n) {
    lanes64 a;
    EACH(64) a.v[i] = (uint8_t)(p[stride * (size_t)(i / 16) + (size_t)(i % 8)] >> (i % 16 < 8 ? 0 : n));
    return a;
}
IQ_INLINE lanes64 v_load32x2(const uint8_t *a, const uint8_t *b) {
    lanes64 r;
    memcpy(r.v, a, 32), memcpy(r.v + 32, b, 32);
    return r;
}
IQ_INLINE lanes64 v_set1(int value) {
    lanes64 r;
    memset(r.v, value, sizeof r.v);
    return r;
}
IQ_INLINE lanes64 v_and(lanes64 a, int mask) {
    EACH(64) a.v[i] &= (uint8_t)mask;
    return a;
}
IQ_INLINE lanes64 v_or(lanes64 a, lanes64 b) {
    EACH(64) a.v[i] |= b.v[i];
    return a;
}
IQ_INLINE lanes64 v_add(lanes64 a, lanes64 b) {
    EACH(64) a.v[i] = (uint8_t)(a.v[i] + b.v[i]);
    return a;
}
/* Shifts within bytes; the n bits shifted in are undefined: mask them, or look up with a table that ignores them. */
IQ_INLINE lanes64 v_shr(lanes64 a, int n) {
    EACH(64) a.v[i] = (uint8_t)(a.v[i] >> n);
    return a;
}
IQ_INLINE lanes64 v_shl(lanes64 a, int n) {
    EACH(64) a.v[i] = (uint8_t)(a.v[i] << n);
    return a;
}
IQ_INLINE lanes64 v_low4(lanes64 a) { return v_and(a, 15); }
IQ_INLINE lanes64 v_high4(lanes64 a) { return v_shr(a, 4); }
/* As low4 and high4, but fit only as an index of a table: the other bits are undefined where that is cheaper. */
IQ_INLINE lanes64 v_index_low4(lanes64 a) { return v_low4(a); }
IQ_INLINE lanes64 v_index_high4(lanes64 a) { return v_high4(a); }
/* An index of n bits: those of mask from a, the others from b. */
IQ_INLINE lanes64 v_index(lanes64 a, int mask, lanes64 b, int n) {
    return v_or(v_and(a, mask), v_and(b, ((1 << n) - 1) & ~mask));
}
/* 16-bit words: bit 0 cleared, then t ^ t >> 1 (the code of IQ4_KSS). */
IQ_INLINE lanes64 v_gray16(lanes64 a) {
    EACH(32) {
        const unsigned t = (unsigned)(a.v[2 * i] | a.v[2 * i + 1] << 8) & 0xfffeu, code = t ^ t >> 1;
        a.v[2 * i] = (uint8_t)code, a.v[2 * i + 1] = (uint8_t)(code >> 8);
    }
    return a;
}
/* Bit 0 of each of the 64 16-bit words of 128 bytes. */
IQ_INLINE uint64_t low_bits_of_words(const uint8_t *p) {
    uint64_t bits = 0;
    EACH(64) bits |= (uint64_t)(p[2 * i] & 1) << i;
    return bits;
}
/* 64 bits, one per lane in order: `value` where set, else 0. */
IQ_INLINE lanes64 v_from_bits(uint64_t bits, int value) {
    lanes64 r;
    EACH(64) r.v[i] = bits >> i & 1 ? (uint8_t)value : 0;
    return r;
}

/* Codebooks; u7: values 0..127, s8: signed values, plus LANE_BIAS. */
typedef const int8_t *lut16, *lut32, *lut64;

IQ_INLINE lanes64 v_signed(lanes64 a) { return a; }
IQ_INLINE lut16 lut16_u7(const int8_t *t) { return t; }
IQ_INLINE lut16 lut16_s8(const int8_t *t) { return t; }
IQ_INLINE lut32 lut32_u7(const int8_t *t) { return t; }
IQ_INLINE lut32 lut32_s8(const int8_t *t) { return t; }
IQ_INLINE lut64 lut64_s8(const int8_t *t) { return t; }
IQ_INLINE lanes64 v_lut16(lut16 t, lanes64 index) {
    EACH(64) index.v[i] = (uint8_t)t[index.v[i]];
    return index;
}
IQ_INLINE lanes64 v_lut32(lut32 t, lanes64 index) { return v_lut16(t, index); }
IQ_INLINE lanes64 v_lut64(lut64 t, lanes64 index) { return v_lut16(t, index); }

/* ---- dot products ----------------------------------------------------------------------------------------------- */

/* The products of 64 codes with 64 activations, summed within slots as far as is free. */
typedef struct {
    int32_t v[4];
} dot64;

IQ_INLINE dot64 v_dot_i8(lanes64 codes, lanes64 q) {
    dot64 r = {{0}};
    for (int k = 0; k < 4; k++) EACH(16) r.v[k] += (int8_t)codes.v[16 * k + i] * (int8_t)q.v[16 * k + i];
    return r;
}
IQ_INLINE dot64 v_dot_u7(lanes64 codes, lanes64 q) { return v_dot_i8(codes, q); }
IQ_INLINE dot64 v_dot_s8(lanes64 codes, lanes64 q) { return v_dot_i8(codes, q); }

/* Slot sums in lane order */
IQ_INLINE i32x16 v_slot_sums(dot64 a, dot64 b, dot64 c, dot64 d) {
    i32x16 r;
    for (int k = 0; k < 4; k++) {
        r.v[4 * k] = a.v[k], r.v[4 * k + 1] = b.v[k], r.v[4 * k + 2] = c.v[k], r.v[4 * k + 3] = d.v[k];
    }
    return r;
}

/* ---- one small integer per slot --------------------------------------------------------------------------------- */

typedef struct {
    uint8_t v[16]; /* in lane order; arithmetic modulo 256 */
} slots;

IQ_INLINE slots slots_nibbles(uint64_t word, iq_slot_order order) {
    slots r;
    EACH(16) r.v[i] = word >> 4 * lane_sub_block[order][i] & 15;
    return r;
}
IQ_INLINE slots slots_crumbs(uint32_t word, iq_slot_order order) {
    slots r;
    EACH(16) r.v[i] = word >> 2 * lane_sub_block[order][i] & 3;
    return r;
}
IQ_INLINE slots slots_pair_bytes(uint64_t word, iq_slot_order order) {
    slots r;
    EACH(16) r.v[i] = word >> 8 * lane_block[order][i] & 255;
    return r;
}
IQ_INLINE slots slots_pair_nibbles(uint32_t word, iq_slot_order order) {
    slots r;
    EACH(16) r.v[i] = word >> 4 * lane_block[order][i] & 15;
    return r;
}
IQ_INLINE slots slots_pair_crumbs(uint32_t word, iq_slot_order order) {
    slots r;
    EACH(16) r.v[i] = word >> 2 * lane_block[order][i] & 3;
    return r;
}
IQ_INLINE slots slots_bytes(const void *p, iq_slot_order order) {
    slots r;
    EACH(16) r.v[i] = ((const uint8_t *)p)[lane_sub_block[order][i]];
    return r;
}
IQ_INLINE slots slots_words(uint64_t low, uint64_t high, iq_slot_order order) { /* 16 bytes in natural order */
    slots r;
    EACH(16) r.v[i] = (lane_sub_block[order][i] < 8 ? low : high) >> 8 * (lane_sub_block[order][i] % 8) & 255;
    return r;
}
IQ_INLINE slots slots_and(slots a, int mask) {
    EACH(16) a.v[i] &= (uint8_t)mask;
    return a;
}
IQ_INLINE slots slots_shr(slots a, int n) { /* of values 0..255 */
    EACH(16) a.v[i] = (uint8_t)(a.v[i] >> n);
    return a;
}
IQ_INLINE slots slots_add(slots a, int b) {
    EACH(16) a.v[i] = (uint8_t)(a.v[i] + b);
    return a;
}
IQ_INLINE slots slots_join(slots low, slots high, int shift) { /* low + (high << shift), no overlap */
    EACH(16) low.v[i] |= (uint8_t)(high.v[i] << shift);
    return low;
}
IQ_INLINE f32x16 slots_f32(slots a) {
    f32x16 r;
    EACH(16) r.v[i] = (float)(int8_t)a.v[i];
    return r;
}
/* b in the lanes whose bit of word is set, else a; bit first + n is that of sub-block (32-block) n */
IQ_INLINE f32x16 slots_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    EACH(16) a.v[i] = word >> (first + lane_sub_block[order][i]) & 1 ? b.v[i] : a.v[i];
    return a;
}
IQ_INLINE f32x16 slots_pair_choose(uint32_t word, int first, iq_slot_order order, f32x16 a, f32x16 b) {
    EACH(16) a.v[i] = word >> (first + lane_block[order][i]) & 1 ? b.v[i] : a.v[i];
    return a;
}
IQ_INLINE f32x16 slots_odd_choose(slots s, f32x16 a, f32x16 b) {
    EACH(16) a.v[i] = s.v[i] & 1 ? b.v[i] : a.v[i];
    return a;
}
/* Through a table of 16 values */
IQ_INLINE f32x16 slots_nibble_values(uint64_t word, iq_slot_order order, const nibble_values *values) {
    f32x16 r;
    EACH(16) r.v[i] = values->f32[word >> 4 * lane_sub_block[order][i] & 15];
    return r;
}
/* nibble + 16 * crumb - 32 */
IQ_INLINE f32x16 slots_6bit_values(uint64_t nibbles, uint32_t crumbs, iq_slot_order order) {
    return slots_f32(slots_add(slots_join(slots_nibbles(nibbles, order), slots_crumbs(crumbs, order), 4), -32));
}
/* One fp16 per 32-block, `stride` bytes apart, to the lanes. */
IQ_INLINE f32x16 slots_pair_f16(const uint8_t *p, size_t stride, iq_slot_order order) {
    f32x16 r;
    EACH(16) r.v[i] = iq_f16_to_f32(iq_load_u16(p + stride * (size_t)lane_block[order][i]));
    return r;
}

/* ---- tiles of 16 rows (gemm) ------------------------------------------------------------------------------------ */

#define TILE_UNIT 64  /* bytes of 16 rows x 4 columns */
#define TILE_TOKENS 1 /* tokens at once: as many as registers hold the sums of */
#define TILE_X_BYTES 1

typedef const int8_t *tile_w, *tile_x;

IQ_INLINE tile_w tile_load(const uint8_t *unit) { return (const int8_t *)unit; }
IQ_INLINE tile_x tile_load_x(const int8_t *q) { return q; }
IQ_INLINE i32x16 tile_init(const int32_t *bias) {
    (void)bias;
    return (i32x16){{0}};
}
/* acc[row] += 4 codes of the row times activations 4c .. 4c + 3 */
IQ_INLINE i32x16 tile_dot(i32x16 acc, tile_w w, tile_x x, int c) {
    const int8_t *q = x + 4 * c;
    EACH(16) acc.v[i] += w[4 * i] * q[0] + w[4 * i + 1] * q[1] + w[4 * i + 2] * q[2] + w[4 * i + 3] * q[3];
    return acc;
}
/* 16 activations as tile_dot reads them */
IQ_INLINE void tile_store_x(int8_t *out, const int8_t *q) { memcpy(out, q, 16); }
/* 64 codes of each of 16 rows to four units per slot, the slots `stride` bytes apart */
IQ_INLINE void tile_store(uint8_t *units, size_t stride, lanes64 rows[16]) {
    for (int r = 0; r < 16; r++) {
        EACH(16) memcpy(units + (size_t)(i / 4) * stride + i % 4 * TILE_UNIT + 4 * r, rows[r].v + 4 * i, 4);
    }
}
/* 16 floats of each of 16 rows to 16 vectors over the rows */
IQ_INLINE void tile_store_f32(float *out, f32x16 rows[16]) {
    for (int r = 0; r < 16; r++) EACH(16) out[16 * i + r] = rows[r].v[i];
}
/* For each byte of chunk i: the int8 value of its slot (a small integer per lane, given as float) */
IQ_INLINE lanes64 v_spread(f32x16 lane_values, int chunk) {
    lanes64 r;
    EACH(64) r.v[i] = (uint8_t)(int)lane_values.v[4 * (i / 16) + chunk];
    return r;
}

/* ---- q8_0 keys and values (kernel/attention_q8.inc.h) ------------------------------------------------------------ */

#define KV_BIAS 0 /* what kv_load_k adds to the codes */

IQ_INLINE i32x16 i32x16_set1(int32_t a) {
    i32x16 r;
    EACH(16) r.v[i] = a;
    return r;
}
/* round(a), ties to even, as int16; |a| <= 32767, a NaN becomes any number */
IQ_INLINE void f32x16_store_i16(int16_t *p, f32x16 a) {
    const f32x16 x = f32x16_round(a);
    EACH(16) p[i] = x.v[i] == x.v[i] ? (int16_t)x.v[i] : 0;
}
typedef const int8_t *kv_codes, *kv_pairs;

IQ_INLINE kv_codes kv_load_k(const uint8_t *p) { return (const int8_t *)p; } /* 16 positions x 4 columns */
IQ_INLINE kv_pairs kv_load_v(const uint8_t *p) { return (const int8_t *)p; } /* 16 columns x 2 positions */
/* acc[position] += 4 codes of the position times q[0 .. 3] */
IQ_INLINE i32x16 kv_dot4(i32x16 acc, kv_codes k, const int8_t *q) {
    EACH(16) acc.v[i] += k[4 * i] * q[0] + k[4 * i + 1] * q[1] + k[4 * i + 2] * q[2] + k[4 * i + 3] * q[3];
    return acc;
}
/* acc[column] += the codes of two positions times w[0], w[1] */
IQ_INLINE i32x16 kv_dot2(i32x16 acc, kv_pairs v, const int16_t *w) {
    EACH(16) acc.v[i] += v[2 * i] * w[0] + v[2 * i + 1] * w[1];
    return acc;
}

#endif
