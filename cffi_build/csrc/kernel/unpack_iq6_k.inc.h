/* IQ6_K */
#define order_iq6_k IQ_ORDER_NIBBLE32

IQ_INLINE void scales_iq6_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq6_k *b = (const block_iq6_k *)block;
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_first_f16(b->d), slots_f32(slots_bytes(b->scales, order_iq6_k)));
    *offset = offset_shifted(block, order_iq6_k, SIGNED_OFFSET(0), IQ6_SHIFT);
}
IQ_INLINE lanes64 codes_iq6_k(const uint8_t *block, int chunk) {
    const block_iq6_k *b = (const block_iq6_k *)block;
    const lanes64 low = index_nibbles(v_load(b->qs + 64 * (chunk / 2)), chunk);
    /* upper two bits: at 0..1 and 4..5 of qh for low nibbles, at 2..3 and 6..7 for high nibbles */
    const lanes64 high = v_load32_twice(b->qh + 32 * (chunk / 2), 4);
    return v_lut64_joined(lut64_s8(iq6_values), low, high, chunk % 2 ? 2 : 0);
}
static const unpacker unpacker_iq6_k = {
    sizeof(block_iq6_k), 0, order_iq6_k, CODES_S8, false, false, row_scale_none, scales_iq6_k, codes_iq6_k,
    NULL, NULL};
