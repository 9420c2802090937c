/* Q8_0: the codes are the integers. */
#define order_q8_0 IQ_ORDER_NATURAL

IQ_INLINE void scales_q8_0(const uint8_t *blocks, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    (void)row_scale;
    *sw = slots_pair_f16(blocks + offsetof(block_q8_0, d), sizeof(block_q8_0), order_q8_0);
    *offset = f32x16_set1(SIGNED_OFFSET(0));
}
IQ_INLINE lanes64 codes_q8_0(const uint8_t *blocks, int chunk) {
    const uint8_t *first = blocks + 2 * sizeof(block_q8_0) * (size_t)chunk + offsetof(block_q8_0, qs);
    return v_signed(v_load32x2(first, first + sizeof(block_q8_0)));
}
static const unpacker unpacker_q8_0 = {
    SMALL_BLOCKS * sizeof(block_q8_0), 0, order_q8_0, CODES_I8, true, false, row_scale_none, scales_q8_0,
    codes_q8_0, NULL, NULL};
