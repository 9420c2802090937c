/* Q6_0: codes 0..63, minus 32. */
#define order_q6_0 IQ_ORDER_NIBBLE16

IQ_INLINE void scales_q6_0(const uint8_t *blocks, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    (void)row_scale;
    *sw = slots_pair_f16(blocks + offsetof(block_q6_0, d), sizeof(block_q6_0), order_q6_0);
    *offset = f32x16_set1(-32.0f);
}
IQ_INLINE lanes64 codes_q6_0(const uint8_t *blocks, int chunk) {
    const uint8_t *first = blocks + 4 * sizeof(block_q6_0) * (size_t)(chunk / 2);
    const lanes64 bytes = v_load16x4(first + offsetof(block_q6_0, qs), sizeof(block_q6_0));
    /* upper two bits: bytes 0..7 of qh hold those of weights 0..7 at 0..1, of 8..15 at 4..5; of 16.. 2 bits on */
    const lanes64 high = v_load8x4_twice(first + offsetof(block_q6_0, qh), sizeof(block_q6_0), 4);
    return v_or(codes_nibbles(bytes, chunk), v_and(v_shl(high, chunk % 2 ? 2 : 4), 48));
}
static const unpacker unpacker_q6_0 = {
    SMALL_BLOCKS * sizeof(block_q6_0), 0, order_q6_0, CODES_U7, true, false, row_scale_none, scales_q6_0,
    codes_q6_0, NULL, NULL};
