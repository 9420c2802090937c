/* IQ5_KS */
#define order_iq5_ks IQ_ORDER_NIBBLE32

IQ_INLINE void scales_iq5_ks(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq5_ks *b = (const block_iq5_ks *)block;
    scales_ks(iq_load_u64(b->scales), order_iq5_ks, IQ5_SHIFT, row_scale, sw, offset);
}
IQ_INLINE lanes64 codes_iq5_ks(const uint8_t *block, int chunk) {
    const block_iq5_ks *b = (const block_iq5_ks *)block;
    const lanes64 low = index_nibbles(v_load(b->qs + 64 * (chunk / 2)), chunk);
    return v_lut32_joined(lut32_s8(iq5_values), low, fifth_bits(b->qh), fifth_bit(chunk));
}
static const unpacker unpacker_iq5_ks = {
    sizeof(block_iq5_ks), IQ5_KS_ROW_META, order_iq5_ks, CODES_S8, true, false, row_scale_f32, scales_iq5_ks,
    codes_iq5_ks, NULL, NULL};
