/* IQ2_KS: values moved up by 31, as in IQ2_K. */
#define order_iq2_ks IQ_ORDER_HALVES

IQ_INLINE void scales_iq2_ks(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq2_ks *b = (const block_iq2_ks *)block;
    const uint32_t word = iq_load_u32(b->extra); /* extra, then scales */
    const f32x16 low = slots_f32(slots_pair_nibbles(iq_load_u32(b->scales), order_iq2_ks));
    const f32x16 scale = slots_pair_choose(word, 8, order_iq2_ks, f32x16_add(low, f32x16_set1(-16.0f)), low);
    *sw = f32x16_mul(row_scale, scale);
    *offset = offset_pair_shifted(word, 0, order_iq2_ks, -31.0f, IQ2_SHIFT);
}
IQ_INLINE lanes64 codes_iq2_ks(const uint8_t *block, int chunk) {
    return codes_2bit(((const block_iq2_ks *)block)->qs, &iq2_k_table, chunk);
}
static const unpacker unpacker_iq2_ks = {
    sizeof(block_iq2_ks), IQ2_KS_ROW_META, order_iq2_ks, CODES_U7, true, false, row_scale_f16, scales_iq2_ks,
    codes_iq2_ks, NULL, NULL};
