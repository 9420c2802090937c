/* IQ2_K: values moved up by 31. */
#define order_iq2_k IQ_ORDER_HALVES

static const table_2bit iq2_k_table = TABLE_2BIT(-31 + 31, -13 + 31, 1 + 31, 17 + 31);

static const nibble_values iq2_k_scales = IQ_NIBBLE_VALUES(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);

IQ_INLINE void scales_iq2_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq2_k *b = (const block_iq2_k *)block;
    const f32x16 scale = slots_nibble_values(iq_load_u64(b->scales), order_iq2_k, &iq2_k_scales);
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_first_f16(b->d), scale);
    *offset = offset_shifted(block, order_iq2_k, -31.0f, IQ2_SHIFT);
}
IQ_INLINE lanes64 codes_iq2_k(const uint8_t *block, int chunk) {
    return codes_2bit(((const block_iq2_k *)block)->qs, &iq2_k_table, chunk);
}
static const unpacker unpacker_iq2_k = {
    sizeof(block_iq2_k), 0, order_iq2_k, CODES_U7, false, false, row_scale_none, scales_iq2_k, codes_iq2_k};
