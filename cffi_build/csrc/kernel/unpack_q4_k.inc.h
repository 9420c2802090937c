/* Q4_K: linear codes with minima. */
#define order_q4_k IQ_ORDER_NIBBLE32

IQ_INLINE void scales_q4_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_q4_k *b = (const block_q4_k *)block;
    (void)row_scale;
    scales_k(b->scales, b->d, b->dmin, sw, offset);
}
IQ_INLINE lanes64 codes_q4_k(const uint8_t *block, int chunk) {
    return codes_nibbles(v_load(((const block_q4_k *)block)->qs + 64 * (chunk / 2)), chunk);
}
static const unpacker unpacker_q4_k = {
    sizeof(block_q4_k), 0, order_q4_k, CODES_U7, true, true, row_scale_none, scales_q4_k, codes_q4_k, NULL, NULL};
