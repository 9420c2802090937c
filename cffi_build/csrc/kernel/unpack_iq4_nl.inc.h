/* IQ4_NL: the 4-bit codebook, one scale per block. */
#define order_iq4_nl IQ_ORDER_NIBBLE16

IQ_INLINE void scales_iq4_nl(const uint8_t *blocks, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    (void)row_scale;
    *sw = slots_pair_f16(blocks + offsetof(block_iq4_nl, d), sizeof(block_iq4_nl), order_iq4_nl);
    *offset = f32x16_set1(SIGNED_OFFSET(0));
}
IQ_INLINE lanes64 codes_iq4_nl(const uint8_t *blocks, int chunk) {
    const uint8_t *first = blocks + 4 * sizeof(block_iq4_nl) * (size_t)(chunk / 2);
    const lanes64 bytes = v_load16x4(first + offsetof(block_iq4_nl, qs), sizeof(block_iq4_nl));
    return v_lut16(lut16_s8(iq4_values), index_nibbles(bytes, chunk));
}
static const unpacker unpacker_iq4_nl = {
    SMALL_BLOCKS * sizeof(block_iq4_nl), 0, order_iq4_nl, CODES_S8, true, false, row_scale_none, scales_iq4_nl,
    codes_iq4_nl, NULL, NULL};
