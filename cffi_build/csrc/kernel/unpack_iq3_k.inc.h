/* IQ3_K: values moved up by 63. */
#define order_iq3_k IQ_ORDER_HALVES

static const table_3bit iq3_k_table =
    TABLE_3BIT(-63 + 63, -40 + 63, -23 + 63, -10 + 63, 1 + 63, 13 + 63, 28 + 63, 47 + 63);

IQ_INLINE void scales_iq3_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq3_k *b = (const block_iq3_k *)block;
    const f32x16 n = slots_f32(slots_nibbles(iq_load_u64(b->scales_l), order_iq3_k));
    const f32x16 d = f32x16_splat_f16(b->d), minus_d = f32x16_sub(f32x16_zero(), d);
    const f32x16 size = f32x16_fma(n, f32x16_set1(2.0f), f32x16_set1(1.0f));
    (void)row_scale;
    *sw = f32x16_mul(size, slots_choose(iq_load_u16(b->scales_h), order_iq3_k, d, minus_d));
    *offset = offset_shifted(iq_load_u16(b->extra), order_iq3_k, -63.0f, IQ3_SHIFT);
}
IQ_INLINE lanes64 codes_iq3_k(const uint8_t *block, int chunk) {
    const block_iq3_k *b = (const block_iq3_k *)block;
    return codes_3bit(b->qs, b->qh, &iq3_k_table, chunk);
}
static const unpacker unpacker_iq3_k = {sizeof(block_iq3_k), 0, order_iq3_k, CODES_U7, false, false,
                                        row_scale_none, scales_iq3_k, codes_iq3_k};
