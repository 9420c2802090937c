/* Q4_0: codes 0..15, minus 8. */
#define order_q4_0 IQ_ORDER_NIBBLE16

IQ_INLINE void scales_q4_0(const uint8_t *blocks, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    (void)row_scale;
    *sw = slots_pair_f16(blocks + offsetof(block_q4_0, d), sizeof(block_q4_0), order_q4_0);
    *offset = f32x16_set1(-8.0f);
}
IQ_INLINE lanes64 codes_q4_0(const uint8_t *blocks, int chunk) {
    const uint8_t *first = blocks + 4 * sizeof(block_q4_0) * (size_t)(chunk / 2);
    const lanes64 bytes = v_load16x4(first + offsetof(block_q4_0, qs), sizeof(block_q4_0));
    return codes_nibbles(bytes, chunk);
}
static const unpacker unpacker_q4_0 = {
    SMALL_BLOCKS * sizeof(block_q4_0), 0, order_q4_0, CODES_U7, true, false, row_scale_none, scales_q4_0,
    codes_q4_0, NULL, NULL};
