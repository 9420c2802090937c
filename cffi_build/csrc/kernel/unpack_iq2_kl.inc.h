/* IQ2_KL: an index gives the weights of an even and an odd column; the activations stand in that order. */
#define order_iq2_kl IQ_ORDER_PAIRS

/* clang-format off */
alignas(32) static const int8_t iq2_kl_even[32] = { /* + 63 */
    0, 0, 23, 23, 23, 23, 40, 40, 40, 40, 40, 53, 53, 53, 53, 64, 64, 64, 64, 64, 76,
    76, 76, 76, 76, 91, 91, 91, 91, 91, 110, 110,
};
alignas(32) static const int8_t iq2_kl_odd[32] = { /* + 63 */
    40, 76, 0, 53, 76, 110, 23, 40, 64, 76, 91, 0, 64, 76, 110, 40,
    53, 64, 76, 91, 23, 40, 53, 64, 76, 0, 40, 64, 91, 110, 40, 76,
};
/* clang-format on */

IQ_INLINE void scales_iq2_kl(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq2_kl *b = (const block_iq2_kl *)block;
    const slots low = slots_pair_bytes(split_nibbles(iq_load_u32(b->scales_l)), order_iq2_kl);
    const slots high = slots_pair_crumbs(iq_load_u16(b->scales_h), order_iq2_kl);
    *sw = f32x16_mul(row_scale, slots_f32(slots_add(slots_join(low, high, 4), -32)));
    *offset = f32x16_set1(-63.0f);
}
IQ_INLINE lanes64 codes_iq2_kl(const uint8_t *block, int chunk) {
    const block_iq2_kl *b = (const block_iq2_kl *)block;
    const lanes64 bytes = v_load(b->qs), fifth = v_load16_fan(b->qh); /* 32-blocks 0 2 4 6, or 1 3 5 7 */
    const lanes64 index = chunk < 2 ? v_index(v_index_low4(bytes), 15, v_shl(fifth, 4), 5)
                                    : v_index(v_index_high4(bytes), 15, v_shl(fifth, 3), 5);
    return v_lut32(lut32_u7(chunk % 2 ? iq2_kl_odd : iq2_kl_even), index);
}
static const unpacker unpacker_iq2_kl = {
    sizeof(block_iq2_kl), IQ2_KL_ROW_META, order_iq2_kl, CODES_U7, true, false, row_scale_f16, scales_iq2_kl,
    codes_iq2_kl, NULL, NULL};
