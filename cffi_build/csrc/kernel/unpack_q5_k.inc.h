/* Q5_K: linear codes with minima. */
#define order_q5_k IQ_ORDER_NIBBLE32

IQ_INLINE void scales_q5_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_q5_k *b = (const block_q5_k *)block;
    (void)row_scale;
    scales_k(b->scales, b->d, b->dmin, sw, offset);
}
IQ_INLINE lanes64 codes_q5_k(const uint8_t *block, int chunk) {
    const block_q5_k *b = (const block_q5_k *)block;
    const lanes64 low = codes_nibbles(v_load(b->qs + 64 * (chunk / 2)), chunk);
    return v_or(low, v_and(to_bit4(fifth_bits(b->qh), fifth_bit(chunk)), 16));
}
static const unpacker unpacker_q5_k = {
    sizeof(block_q5_k), 0, order_q5_k, CODES_U7, true, true, row_scale_none, scales_q5_k, codes_q5_k, NULL, NULL};
