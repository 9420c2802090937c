/* Activations to int8: per 32 columns d = max |x| / 127, q = round(x * (127 / max |x|)), ties to even. Only exactly
 * rounded operations, each written in one way: the bytes are the same on every instruction set. */

#define LEAST_AMAX 0x1p-100f /* below it a block counts as zero; 127 / max |x| stays finite */

/* 32 columns to q; returns d. A block with a NaN or Inf becomes NaN as a whole: d says so, q is 0. */
IQ_INLINE float quantize_block(f32x16 a, f32x16 b, int8_t q[32]) {
    const uint32_t bits = i32x16_reduce_max2(i32x16_abs_bits(a), i32x16_abs_bits(b));
    const float amax = iq_bits_to_f32(bits);
    if (bits >= 0x7f800000u || amax < LEAST_AMAX) {
        memset(q, 0, 32);
        return bits >= 0x7f800000u ? iq_bits_to_f32(0x7fc00000u) : 0.0f;
    }
    const f32x16 inverse = f32x16_set1(127.0f / amax);
    f32x16_store_i8(q, f32x16_mul(a, inverse));
    f32x16_store_i8(q + 16, f32x16_mul(b, inverse));
    return amax / 127.0f;
}

/* The 32 integers of block b to its two slots. */
IQ_INLINE void place_block(const int8_t q[32], int b, iq_slot_order order, int8_t *out) {
    const int first = slot_of_sub_block[order][2 * b], second = slot_of_sub_block[order][2 * b + 1];
    if (order != IQ_ORDER_PAIRS) {
        memcpy(out + 16 * first, q, 16), memcpy(out + 16 * second, q + 16, 16);
        return;
    }
    for (int i = 0; i < 16; i++) out[16 * first + i] = q[2 * i], out[16 * second + i] = q[2 * i + 1];
}

/* s and bias from q and d */
IQ_INLINE void sum_slots(iq_q8_block *out) {
    const lanes64 ones = v_set1(1);
    const i32x16 sums = v_slot_sums(v_dot_u7(ones, v_load(out->q)), v_dot_u7(ones, v_load(out->q + 64)),
                                    v_dot_u7(ones, v_load(out->q + 128)), v_dot_u7(ones, v_load(out->q + 192)));
    f32x16_store(out->s, f32x16_mul(f32x16_load(out->d), i32x16_f32(sums)));
    memcpy(out->bias, &sums, sizeof out->bias);
    for (int i = 0; i < IQ_SLOTS; i++) out->bias[i] *= -128;
}

IQ_INLINE void quantize_superblock(const float *x, size_t n, iq_slot_order order, iq_q8_block *out) {
    float d[8];
    for (int b = 0; b < 8; b++) {
        const size_t from = 32 * (size_t)b, left = n > from ? n - from : 0;
        int8_t q[32];
        const f32x16 low = left >= 16 ? f32x16_load(x + from) : left ? f32x16_load_n(x + from, left) : f32x16_zero();
        const f32x16 high = left >= 32   ? f32x16_load(x + from + 16)
                            : left >= 17 ? f32x16_load_n(x + from + 16, left - 16)
                                         : f32x16_zero();
        d[b] = quantize_block(low, high, q);
        place_block(q, b, order, out->q);
    }
    for (int lane = 0; lane < IQ_SLOTS; lane++) out->d[lane] = d[lane_block[order][lane]];
    sum_slots(out);
}

static void quantize_x(const float *x, size_t n_cols, iq_slot_order order, iq_q8_block *out) {
    for (size_t i = 0; i < n_cols; i += IQ_SUPERBLOCK, out++) {
        quantize_superblock(x + i, iq_min_size(n_cols - i, IQ_SUPERBLOCK), order, out);
    }
}
