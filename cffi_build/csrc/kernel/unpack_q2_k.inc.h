/* Q2_K: linear codes with minima. */
#define order_q2_k IQ_ORDER_HALVES

static const table_2bit q2_k_table = TABLE_2BIT(0, 1, 2, 3);

IQ_INLINE void scales_q2_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_q2_k *b = (const block_q2_k *)block;
    const slots packed = slots_bytes(b->scales, order_q2_k);
    const f32x16 min = f32x16_mul(f32x16_splat_f16(b->dmin), slots_f32(slots_and(slots_shr(packed, 4), 15)));
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_f16(b->d), slots_f32(slots_and(packed, 15)));
    *offset = f32x16_sub(f32x16_zero(), min);
}
IQ_INLINE lanes64 codes_q2_k(const uint8_t *block, int chunk) {
    return codes_2bit(((const block_q2_k *)block)->qs, &q2_k_table, chunk);
}
static const unpacker unpacker_q2_k = {
    sizeof(block_q2_k), 0, order_q2_k, CODES_U7, false, true, row_scale_none, scales_q2_k, codes_q2_k, NULL, NULL};
