/* IQ4_KSS: IQ4_KS whose scale bytes are the low bits of the 64 16-bit words of codes. */
#define order_iq4_kss IQ_ORDER_NIBBLE16

IQ_INLINE void scales_iq4_kss(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    scales_ks(low_bits_of_words(block), order_iq4_kss, IQ4_SHIFT, row_scale, sw, offset);
}
IQ_INLINE lanes64 codes_iq4_kss(const uint8_t *block, int chunk) {
    const lanes64 bytes = v_gray16(v_load(((const block_iq4_kss *)block)->qs + 64 * (chunk / 2)));
    return v_lut16(lut16_s8(iq4_values), index_nibbles(bytes, chunk));
}
static const unpacker unpacker_iq4_kss = {
    sizeof(block_iq4_kss), IQ4_KSS_ROW_META, order_iq4_kss, CODES_S8, true, false, row_scale_f32, scales_iq4_kss,
    codes_iq4_kss, NULL, NULL};
