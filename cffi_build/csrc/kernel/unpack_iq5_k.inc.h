/* IQ5_K */
#define order_iq5_k IQ_ORDER_NIBBLE32

IQ_INLINE void scales_iq5_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq5_k *b = (const block_iq5_k *)block;
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_first_f16(b->d), scales_4_2(b->scales_l, b->scales_h, order_iq5_k));
    *offset = offset_shifted(block, order_iq5_k, SIGNED_OFFSET(0), IQ5_SHIFT);
}
IQ_INLINE lanes64 codes_iq5_k(const uint8_t *block, int chunk) {
    const block_iq5_k *b = (const block_iq5_k *)block;
    const lanes64 low = index_nibbles(v_load(b->qs + 64 * (chunk / 2)), chunk);
    return v_lut32_joined(lut32_s8(iq5_values), low, fifth_bits(b->qh), fifth_bit(chunk));
}
static const unpacker unpacker_iq5_k = {
    sizeof(block_iq5_k), 0, order_iq5_k, CODES_S8, false, false, row_scale_none, scales_iq5_k, codes_iq5_k,
    NULL, NULL};
