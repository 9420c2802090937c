/* Floats to a row of the KV cache (kernel/kv_layout.h); the same bytes on every instruction set. */

/* A value beyond the type's range becomes the largest one: an infinity in V would turn masked weights (0) into NaN. */
IQ_INLINE f32x16 within(float most, f32x16 x) {
    return f32x16_min(f32x16_set1(most), f32x16_max(f32x16_set1(-most), x));
}

IQ_INLINE f32x16 load_up_to_16(const float *x, size_t n) {
    return n >= 16 ? f32x16_load(x) : n > 0 ? f32x16_load_n(x, n) : f32x16_zero();
}

IQ_INLINE void store_up_to_16(float *out, f32x16 a, size_t n) {
    if (n >= 16) {
        f32x16_store(out, a);
    } else {
        f32x16_store_n(out, a, n);
    }
}

static void kv_store_f16(const float *x, size_t n, uint8_t *out) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16) f32x16_store_f16(out + 2 * i, within(65504.0f, f32x16_load(x + i)));
    if (i == n) return;
    uint8_t tail[32];
    f32x16_store_f16(tail, within(65504.0f, f32x16_load_n(x + i, n - i)));
    memcpy(out + 2 * i, tail, 2 * (n - i));
}

/* d = max |x| / 127 as float16, q = round(x / d). d is rounded first, so that it adds no error of its own; where that
 * leaves it too small (a subnormal), q stops at 127. A block with a NaN gets the scale NaN. */
static void kv_store_q8_block(const float *x, size_t n, block_q8_0 *out) {
    const float most = 127.0f * 65504.0f;
    const f32x16 a = within(most, load_up_to_16(x, n)), b = within(most, load_up_to_16(x + 16, n < 16 ? 0 : n - 16));
    const uint32_t bits = i32x16_reduce_max2(i32x16_abs_bits(a), i32x16_abs_bits(b));
    memset(out->qs, 0, sizeof out->qs);
    const uint16_t d = bits >= 0x7f800000u ? 0x7e00u : iq_f32_to_f16(iq_bits_to_f32(bits) / 127.0f);
    memcpy(out->d, &d, sizeof d);
    if (d == 0 || bits >= 0x7f800000u) return;
    const f32x16 inverse = f32x16_set1(1.0f / iq_f16_to_f32(d));
    f32x16_store_i8(out->qs, within(127.0f, f32x16_mul(a, inverse)));
    f32x16_store_i8(out->qs + 16, within(127.0f, f32x16_mul(b, inverse)));
}

/* n values, a multiple of 8, to a row. */
static void kv_store(const float *x, size_t n, int32_t kv_type, void *out) {
    if (kv_type == IQ_TYPE_F32) {
        memcpy(out, x, n * sizeof *x);
    } else if (kv_type == IQ_TYPE_F16) {
        kv_store_f16(x, n, out);
    } else {
        block_q8_0 *blocks = out;
        for (size_t i = 0; i < n; i += 32) kv_store_q8_block(x + i, iq_min_size(32, n - i), &blocks[i / 32]);
    }
}
