/* IQ4_K */
#define order_iq4_k IQ_ORDER_NIBBLE16

IQ_INLINE void scales_iq4_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq4_k *b = (const block_iq4_k *)block;
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_first_f16(b->d), scales_4_2(b->scales_l, b->scales_h, order_iq4_k));
    *offset = offset_shifted(block, order_iq4_k, SIGNED_OFFSET(0), IQ4_SHIFT);
}
IQ_INLINE lanes64 codes_iq4_k(const uint8_t *block, int chunk) {
    const lanes64 bytes = v_load(((const block_iq4_k *)block)->qs + 64 * (chunk / 2));
    return v_lut16(lut16_s8(iq4_values), index_nibbles(bytes, chunk));
}
static const unpacker unpacker_iq4_k = {
    sizeof(block_iq4_k), 0, order_iq4_k, CODES_S8, false, false, row_scale_none, scales_iq4_k, codes_iq4_k,
    NULL, NULL};
