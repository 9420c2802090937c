/* IQ2_K: values moved up by 31. */
#define order_iq2_k IQ_ORDER_HALVES

static const table_2bit iq2_k_table = TABLE_2BIT(-31 + 31, -13 + 31, 1 + 31, 17 + 31);

static const nibble_values iq2_k_scales = IQ_NIBBLE_VALUES(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);

IQ_INLINE void scales_iq2_k(const uint8_t *block, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const block_iq2_k *b = (const block_iq2_k *)block;
    const f32x16 scale = slots_nibble_values(iq_load_u64(b->scales), order_iq2_k, &iq2_k_scales);
    (void)row_scale;
    *sw = f32x16_mul(f32x16_splat_first_f16(b->d), scale);
    *offset = offset_shifted(block, order_iq2_k, -31.0f, IQ2_SHIFT);
}
IQ_INLINE lanes64 codes_iq2_k(const uint8_t *block, int chunk) {
    return codes_2bit(((const block_iq2_k *)block)->qs, &iq2_k_table, chunk);
}

#if defined(TILE_FOLDS)
/* A scale of -8 .. 7 times a value: -217 .. 248 with the plain codebook, whose values are odd, -176 .. 208 with the
 * shifted one, whose values are even. */
#define IQ2_FOLD(scale, value) (uint8_t)((((scale) * (value)) - (((scale) * (value)) & 1)) / 2 + TILE_BIAS)
#define IQ2_FOLDED(scale, shift)                                                                                       \
    {IQ2_FOLD(scale, -31 + (shift)), IQ2_FOLD(scale, -13 + (shift)), IQ2_FOLD(scale, 1 + (shift)),                     \
     IQ2_FOLD(scale, 17 + (shift))}
#define IQ2_FOLDED_TABLE(shift)                                                                                        \
    {IQ2_FOLDED(-8, shift), IQ2_FOLDED(-7, shift), IQ2_FOLDED(-6, shift), IQ2_FOLDED(-5, shift),                       \
     IQ2_FOLDED(-4, shift), IQ2_FOLDED(-3, shift), IQ2_FOLDED(-2, shift), IQ2_FOLDED(-1, shift),                       \
     IQ2_FOLDED(0, shift),  IQ2_FOLDED(1, shift),  IQ2_FOLDED(2, shift),  IQ2_FOLDED(3, shift),                        \
     IQ2_FOLDED(4, shift),  IQ2_FOLDED(5, shift),  IQ2_FOLDED(6, shift),  IQ2_FOLDED(7, shift)}

alignas(64) static const uint8_t iq2_folded[2][16][4] = {IQ2_FOLDED_TABLE(0), IQ2_FOLDED_TABLE(IQ2_SHIFT)};

/* Four codes for each lane */
IQ_INLINE lanes64 fold_iq2_k(const uint8_t *block, float *d, uint16_t *odd) {
    const block_iq2_k *b = (const block_iq2_k *)block;
    const uint16_t extra = iq_load_u16(b->extra);
    *d = iq_f16_to_f32(iq_load_u16(b->d));
    return slots_fold_nibbles(iq_load_u64(b->scales), extra, order_iq2_k, iq2_folded, odd);
}
IQ_INLINE lanes64 folded_iq2_k(const uint8_t *block, lanes64 table, int chunk) {
    return v_lut_slots(table, v_shr(v_load(((const block_iq2_k *)block)->qs), 2 * chunk), chunk);
}
#define FOLD_IQ2_K fold_iq2_k, folded_iq2_k
#else
#define FOLD_IQ2_K NULL, NULL
#endif

static const unpacker unpacker_iq2_k = {
    sizeof(block_iq2_k), 0, order_iq2_k, CODES_U7, false, false, row_scale_none, scales_iq2_k, codes_iq2_k, FOLD_IQ2_K};
