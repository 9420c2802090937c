/* IQ3_K: values moved up by 63. */
#define order_iq3_k IQ_ORDER_HALVES

static const table_3bit iq3_k_table =
    TABLE_3BIT(-63 + 63, -40 + 63, -23 + 63, -10 + 63, 1 + 63, 13 + 63, 28 + 63, 47 + 63);

static const nibble_values iq3_k_scales = IQ_NIBBLE_VALUES(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);

IQ_INLINE void scales_iq3_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq3_k *b = (const block_iq3_k *)block;
    const f32x16 size = slots_nibble_values(iq_load_u64(b->scales_l), order_iq3_k, &iq3_k_scales);
    const f32x16 d = f32x16_splat_first_f16(b->d), minus_d = f32x16_sub(f32x16_zero(), d);
    (void)row_scale;
    *sw = f32x16_mul(size, slots_choose(iq_load_u32(b->scales_h), 0, order_iq3_k, d, minus_d));
    *offset = offset_shifted(block, order_iq3_k, -63.0f, IQ3_SHIFT);
}
IQ_INLINE lanes64 codes_iq3_k(const uint8_t *block, int chunk) {
    const block_iq3_k *b = (const block_iq3_k *)block;
    return codes_3bit(b->qs, b->qh, &iq3_k_table, chunk);
}
static const unpacker unpacker_iq3_k = {
    sizeof(block_iq3_k), 0, order_iq3_k, CODES_U7, false, false, row_scale_none, scales_iq3_k, codes_iq3_k,
    NULL, NULL};
