/* Q3_K: linear codes 0..7, minus 4. */
#define order_q3_k IQ_ORDER_HALVES

static const table_3bit q3_k_table = TABLE_3BIT(0, 1, 2, 3, 4, 5, 6, 7);

IQ_INLINE void scales_q3_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_q3_k *b = (const block_q3_k *)block;
    const uint64_t low = iq_load_u64(b->scales), nibbles = 0x0f0f0f0f0f0f0f0f;
    const uint32_t high = iq_load_u32(b->scales + 8), crumbs = 0x03030303; /* of scales i, i + 4, i + 8, i + 12 */
    const uint64_t high0 = (high & crumbs) | (uint64_t)(high >> 2 & crumbs) << 32;
    const uint64_t high1 = (high >> 4 & crumbs) | (uint64_t)(high >> 6 & crumbs) << 32;
    const slots scale = slots_words((low & nibbles) | high0 << 4, (low >> 4 & nibbles) | high1 << 4, order_q3_k);
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_f16(b->d), slots_f32(slots_add(scale, -32)));
    *offset = f32x16_set1(-4.0f);
}
IQ_INLINE lanes64 codes_q3_k(const uint8_t *block, int chunk) {
    const block_q3_k *b = (const block_q3_k *)block;
    return codes_3bit(b->qs, b->hmask, &q3_k_table, chunk);
}
static const unpacker unpacker_q3_k = {
    sizeof(block_q3_k), 0, order_q3_k, CODES_U7, false, false, row_scale_none, scales_q3_k, codes_q3_k, NULL, NULL};
