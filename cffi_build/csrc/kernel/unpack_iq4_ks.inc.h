/* IQ4_KS */
#define order_iq4_ks IQ_ORDER_NIBBLE16

IQ_INLINE void scales_iq4_ks(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq4_ks *b = (const block_iq4_ks *)block;
    scales_ks(iq_load_u64(b->scales), order_iq4_ks, IQ4_SHIFT, row_scale, sw, offset);
}
IQ_INLINE lanes64 codes_iq4_ks(const uint8_t *block, int chunk) {
    const lanes64 bytes = v_load(((const block_iq4_ks *)block)->qs + 64 * (chunk / 2));
    return v_lut16(lut16_s8(iq4_values), index_nibbles(bytes, chunk));
}
static const unpacker unpacker_iq4_ks = {
    sizeof(block_iq4_ks), IQ4_KS_ROW_META, order_iq4_ks, CODES_S8, true, false, row_scale_f32, scales_iq4_ks,
    codes_iq4_ks, NULL, NULL};
