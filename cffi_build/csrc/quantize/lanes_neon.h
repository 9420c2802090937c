/* Sixteen floats side by side, one per sub-block: NEON. The same words as lanes_portable.h. */
#ifndef IQ_QUANTIZE_LANES_NEON_H
#define IQ_QUANTIZE_LANES_NEON_H

#define L_QUARTERS 4

typedef struct {
    float32x4_t q[L_QUARTERS];
} lanes;
typedef struct {
    int32x4_t q[L_QUARTERS];
} lanes_int;
typedef struct {
    uint32x4_t q[L_QUARTERS]; /* all bits of a lane set or clear */
} lanes_mask;

#define L_EACH(type, expression)                                                                                       \
    type r;                                                                                                            \
    for (int i = 0; i < L_QUARTERS; i++) r.q[i] = (expression);                                                        \
    return r

IQ_INLINE lanes l_load(const float *p) { L_EACH(lanes, vld1q_f32(p + 4 * i)); }
IQ_INLINE void l_store(float *p, lanes x) {
    for (int i = 0; i < L_QUARTERS; i++) vst1q_f32(p + 4 * i, x.q[i]);
}
IQ_INLINE lanes l_set(float x) { L_EACH(lanes, vdupq_n_f32(x)); }
IQ_INLINE lanes l_add(lanes x, lanes y) { L_EACH(lanes, vaddq_f32(x.q[i], y.q[i])); }
IQ_INLINE lanes l_sub(lanes x, lanes y) { L_EACH(lanes, vsubq_f32(x.q[i], y.q[i])); }
IQ_INLINE lanes l_mul(lanes x, lanes y) { L_EACH(lanes, vmulq_f32(x.q[i], y.q[i])); }
IQ_INLINE lanes l_div(lanes x, lanes y) { L_EACH(lanes, vdivq_f32(x.q[i], y.q[i])); }
IQ_INLINE lanes l_min(lanes x, lanes y) { L_EACH(lanes, vminq_f32(x.q[i], y.q[i])); }
IQ_INLINE lanes l_max(lanes x, lanes y) { L_EACH(lanes, vmaxq_f32(x.q[i], y.q[i])); }
IQ_INLINE lanes l_round(lanes x) { L_EACH(lanes, vrndnq_f32(x.q[i])); }
IQ_INLINE lanes_mask l_greater(lanes x, lanes y) { L_EACH(lanes_mask, vcgtq_f32(x.q[i], y.q[i])); }
IQ_INLINE lanes l_select(lanes_mask m, lanes yes, lanes no) { L_EACH(lanes, vbslq_f32(m.q[i], yes.q[i], no.q[i])); }
IQ_INLINE lanes_mask l_xor(lanes_mask x, lanes_mask y) { L_EACH(lanes_mask, veorq_u32(x.q[i], y.q[i])); }
IQ_INLINE lanes_mask l_andnot(lanes_mask x, lanes_mask y) { L_EACH(lanes_mask, vbicq_u32(x.q[i], y.q[i])); }

IQ_INLINE float l_sum(lanes x) {
    const float32x4_t quarter = vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
    return vaddv_f32(vadd_f32(vget_low_f32(quarter), vget_high_f32(quarter)));
}

IQ_INLINE lanes_int l_int_set(int x) { L_EACH(lanes_int, vdupq_n_s32(x)); }
IQ_INLINE lanes_int l_int_zero(void) { return l_int_set(0); }
IQ_INLINE lanes_int l_truncate(lanes x) { L_EACH(lanes_int, vcvtq_s32_f32(x.q[i])); }
IQ_INLINE lanes l_from_int(lanes_int x) { L_EACH(lanes, vcvtq_f32_s32(x.q[i])); }
IQ_INLINE lanes_int l_increment(lanes_int x, lanes_mask m) {
    L_EACH(lanes_int, vsubq_s32(x.q[i], vreinterpretq_s32_u32(m.q[i])));
}
IQ_INLINE lanes_int l_int_select(lanes_mask m, lanes_int yes, lanes_int no) {
    L_EACH(lanes_int, vbslq_s32(m.q[i], yes.q[i], no.q[i]));
}

/* ---- a byte per lane: one shuffle looks sixteen lanes up ---- */

#define L_BYTE_LOOKUPS

typedef uint8x16_t lane_bytes;
typedef struct {
    lane_bytes cell, rest;
} lane_position;

IQ_INLINE uint16x8_t narrow_halves(int32x4_t low, int32x4_t high) {
    return vcombine_u16(vreinterpret_u16_s16(vmovn_s32(low)), vreinterpret_u16_s16(vmovn_s32(high)));
}

/* x = 128 cell + rest, x below 128 * 128 */
IQ_INLINE lane_position l_split_7(lanes_int x) {
    const uint16x8_t low = narrow_halves(x.q[0], x.q[1]), high = narrow_halves(x.q[2], x.q[3]);
    return (lane_position){
        vcombine_u8(vshrn_n_u16(low, 7), vshrn_n_u16(high, 7)),
        vandq_u8(vcombine_u8(vmovn_u16(low), vmovn_u16(high)), vdupq_n_u8(127)),
    };
}

/* table[index], index below n (a constant: 8, 16, 32 or 64) */
IQ_INLINE lane_bytes l_byte_lookup(const uint8_t *table, int n, lane_bytes index) {
    if (n <= 16) return vqtbl1q_u8(vld1q_u8(table), index);
    if (n <= 32) return vqtbl2q_u8(vld1q_u8_x2(table), index);
    return vqtbl4q_u8(vld1q_u8_x4(table), index);
}
/* a + (x > y), signed */
IQ_INLINE lane_bytes l_byte_increment(lane_bytes a, lane_bytes x, lane_bytes y) {
    return vsubq_u8(a, vcgtq_s8(vreinterpretq_s8_u8(x), vreinterpretq_s8_u8(y)));
}
IQ_INLINE lanes_int l_int_from_bytes(lane_bytes x) {
    const int8x16_t s = vreinterpretq_s8_u8(x);
    const int16x8_t low = vmovl_s8(vget_low_s8(s)), high = vmovl_high_s8(s);
    return (lanes_int){
        {vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)}};
}
IQ_INLINE lane_bytes bytes_from_int(lanes_int x) {
    return vcombine_u8(vmovn_u16(narrow_halves(x.q[0], x.q[1])), vmovn_u16(narrow_halves(x.q[2], x.q[3])));
}
IQ_INLINE void l_store_bytes(uint8_t *p, lanes_int x) { vst1q_u8(p, bytes_from_int(x)); }

IQ_INLINE lanes l_iq6_value(lanes q) {
    lanes y = l_set(IQ6_CUBIC[0]);
    for (int n = 1; n < 4; n++) {
        for (int i = 0; i < L_QUARTERS; i++) y.q[i] = vfmaq_f32(vdupq_n_f32(IQ6_CUBIC[n]), q.q[i], y.q[i]);
    }
    return y;
}

/* table[index], index below n: by bytes, four of which make an entry. */
IQ_INLINE uint8x16_t table_bytes(const uint8_t *table, int n, uint8x16_t at) {
    if (n <= 8) return vqtbl2q_u8(vld1q_u8_x2(table), at);
    const uint8x16_t first = vqtbl4q_u8(vld1q_u8_x4(table), at);
    return n <= 16 ? first : vqtbx4q_u8(first, vld1q_u8_x4(table + 64), vsubq_u8(at, vdupq_n_u8(64)));
}
IQ_INLINE lanes_int l_int_lookup(const int32_t *table, int n, lanes_int index) {
    const int32x4_t byte = vdupq_n_s32(0x03020100), each = vdupq_n_s32(0x04040404);
    L_EACH(lanes_int, vreinterpretq_s32_u8(table_bytes((const uint8_t *)table, n,
                                                       vreinterpretq_u8_s32(vmlaq_s32(byte, index.q[i], each)))));
}
IQ_INLINE lanes l_lookup(const float *table, int n, lanes_int index) {
    const lanes_int bits = l_int_lookup((const int32_t *)(const void *)table, n, index);
    L_EACH(lanes, vreinterpretq_f32_s32(bits.q[i]));
}

#endif
