/* Q6_K: linear codes 0..63, minus 32. */
#define order_q6_k IQ_ORDER_NATURAL

IQ_INLINE void scales_q6_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_q6_k *b = (const block_q6_k *)block;
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_f16(b->d), slots_f32(slots_bytes(b->scales, order_q6_k)));
    *offset = f32x16_set1(-32.0f);
}
IQ_INLINE lanes64 codes_q6_k(const uint8_t *block, int chunk) {
    const block_q6_k *b = (const block_q6_k *)block;
    const lanes64 low = codes_nibbles(v_load(b->ql + 64 * (chunk / 2)), chunk);
    /* upper two bits: at 0..1 and 2..3 of qh for low nibbles, at 4..5 and 6..7 for high nibbles */
    const lanes64 high = v_load32_twice(b->qh + 32 * (chunk / 2), 2);
    return v_or(low, v_and(chunk % 2 ? high : v_shl(high, 4), 48));
}
static const unpacker unpacker_q6_k = {
    sizeof(block_q6_k), 0, order_q6_k, CODES_U7, false, false, row_scale_none, scales_q6_k, codes_q6_k, NULL, NULL};
