/* IQ4_XS: one codebook; 6-bit scales per 32-block. */
#define order_iq4_xs IQ_ORDER_NIBBLE16

IQ_INLINE void scales_iq4_xs(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq4_xs *b = (const block_iq4_xs *)block;
    const slots low = slots_pair_nibbles(iq_load_u32(b->scales_l), order_iq4_xs);
    const slots high = slots_pair_crumbs(iq_load_u16(b->scales_h), order_iq4_xs);
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_first_f16(b->d), slots_f32(slots_add(slots_join(low, high, 4), -32)));
    *offset = f32x16_set1(SIGNED_OFFSET(0));
}
IQ_INLINE lanes64 codes_iq4_xs(const uint8_t *block, int chunk) {
    const lanes64 bytes = v_load(((const block_iq4_xs *)block)->qs + 64 * (chunk / 2));
    return v_lut16(lut16_s8(iq4_values), index_nibbles(bytes, chunk));
}
static const unpacker unpacker_iq4_xs = {
    sizeof(block_iq4_xs), 0, order_iq4_xs, CODES_S8, true, false, row_scale_none, scales_iq4_xs, codes_iq4_xs,
    NULL, NULL};
