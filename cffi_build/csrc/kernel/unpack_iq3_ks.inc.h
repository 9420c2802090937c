/* IQ3_KS: values moved up by 63, as in IQ3_K. */
#define order_iq3_ks IQ_ORDER_HALVES

IQ_INLINE void scales_iq3_ks(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq3_ks *b = (const block_iq3_ks *)block;
    const uint64_t scale = split_nibbles(iq_load_u32(b->scales)) | spread_bits(b->extra[0]);
    *sw = f32x16_mul(row_scale, slots_f32(slots_add(slots_pair_bytes(scale, order_iq3_ks), -16)));
    *offset = offset_pair_shifted(iq_load_u32(b->extra), 8, order_iq3_ks, -63.0f, IQ3_SHIFT);
}
IQ_INLINE lanes64 codes_iq3_ks(const uint8_t *block, int chunk) {
    const block_iq3_ks *b = (const block_iq3_ks *)block;
    return codes_3bit(b->qs, b->qh, &iq3_k_table, chunk);
}
static const unpacker unpacker_iq3_ks = {
    sizeof(block_iq3_ks), IQ3_KS_ROW_META, order_iq3_ks, CODES_U7, true, false, row_scale_f16, scales_iq3_ks,
    codes_iq3_ks, NULL, NULL};
