/* Q4_1: codes 0..15 with a minimum. */
#define order_q4_1 IQ_ORDER_NIBBLE16

IQ_INLINE void scales_q4_1(const uint8_t *blocks, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    (void)row_scale;
    *sw = slots_pair_f16(blocks + offsetof(block_q4_1, d), sizeof(block_q4_1), order_q4_1);
    *offset = slots_pair_f16(blocks + offsetof(block_q4_1, m), sizeof(block_q4_1), order_q4_1);
}
IQ_INLINE lanes64 codes_q4_1(const uint8_t *blocks, int chunk) {
    const uint8_t *first = blocks + 4 * sizeof(block_q4_1) * (size_t)(chunk / 2);
    const lanes64 bytes = v_load16x4(first + offsetof(block_q4_1, qs), sizeof(block_q4_1));
    return codes_nibbles(bytes, chunk);
}
static const unpacker unpacker_q4_1 = {
    SMALL_BLOCKS * sizeof(block_q4_1), 0, order_q4_1, CODES_U7, true, true, row_scale_none, scales_q4_1,
    codes_q4_1, NULL, NULL};
