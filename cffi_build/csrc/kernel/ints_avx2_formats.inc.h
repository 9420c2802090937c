/* The formats of gemv_avx2_shape.inc.h, one after the other. */

/* ---- 2- and 3-bit codes ------------------------------------------------------------------------------------------ */

IQ_INLINE int_scales int_scales_iq2_k(const uint8_t *block) {
    const block_iq2_k *b = (const block_iq2_k *)block;
    const __m256i top = nibbles_on_top(header_of(block), VECTORS_HALVES, offsetof(block_iq2_k, scales));
    const __m256i scale = _mm256_srai_epi16(_mm256_xor_si256(top, _mm256_set1_epi16(-0x8000)), 12); /* nibble - 8 */
    const __m256i set = words_set(iq_load_u16(b->extra), VECTORS_HALVES);
    return with_d(moved_scales(scale, set, -31, IQ2_SHIFT), b->d);
}
IQ_INLINE code_pair int_codes_iq2_k(const uint8_t *block, int b) {
    const int8_t *table = b % 2 ? iq2_k_table.high : iq2_k_table.low;
    return look_up(lut16_u7(table), crumb_nibbles(((const block_iq2_k *)block)->qs, b, true));
}
static const int_unpacker ints_iq2_k = {CODES_U6, VECTORS_HALVES, 1, false, true, int_scales_iq2_k,
                                         int_codes_iq2_k};

IQ_INLINE int_scales int_scales_iq2_ks(const uint8_t *block) {
    const block_iq2_ks *b = (const block_iq2_ks *)block;
    const __m256i low = words_of(each_twice(nibbles_of(iq_load_u32(b->scales))));
    return moved_scales(fifth_joined(low, b->extra[1]), word_pairs_set(b->extra[0]), -31, IQ2_SHIFT);
}
IQ_INLINE code_pair int_codes_iq2_ks(const uint8_t *block, int b) {
    const int8_t *table = b % 2 ? iq2_k_table.high : iq2_k_table.low;
    return look_up(lut16_u7(table), crumb_nibbles(((const block_iq2_ks *)block)->qs, b, false));
}
static const int_unpacker ints_iq2_ks = {CODES_U6, VECTORS_HALVES, 1, true, false, int_scales_iq2_ks,
                                         int_codes_iq2_ks};

IQ_INLINE int_scales int_scales_iq3_k(const uint8_t *block) {
    const block_iq3_k *b = (const block_iq3_k *)block;
    const __m256i top = nibbles_on_top(header_of(block), VECTORS_HALVES, offsetof(block_iq3_k, scales_l));
    const __m256i size = _mm256_or_si256(_mm256_srli_epi16(top, 11), _mm256_set1_epi16(1)); /* 2 * nibble + 1 */
    const __m256i minus = words_set(iq_load_u16(b->scales_h), VECTORS_HALVES);
    const __m256i scale = _mm256_sub_epi16(_mm256_xor_si256(size, minus), minus);
    const __m256i set = words_set(iq_load_u16(b->extra), VECTORS_HALVES);
    return with_d(moved_scales(scale, set, -63, IQ3_SHIFT), b->d);
}
IQ_INLINE code_pair int_codes_iq3_k(const uint8_t *block, int b) {
    const block_iq3_k *p = (const block_iq3_k *)block;
    return look_up_3bit(iq3_k_table.low, p->qs, p->qh, b, true);
}
static const int_unpacker ints_iq3_k = {CODES_UNSIGNED, VECTORS_HALVES, 1, false, true, int_scales_iq3_k,
                                         int_codes_iq3_k};

IQ_INLINE int_scales int_scales_iq3_ks(const uint8_t *block) {
    const block_iq3_ks *b = (const block_iq3_ks *)block;
    const __m256i low = words_of(each_twice(low8(split_nibbles(iq_load_u32(b->scales)))));
    return moved_scales(fifth_joined(low, b->extra[0]), word_pairs_set(b->extra[1]), -63, IQ3_SHIFT);
}
IQ_INLINE code_pair int_codes_iq3_ks(const uint8_t *block, int b) {
    const block_iq3_ks *p = (const block_iq3_ks *)block;
    return look_up_3bit(iq3_k_table.low, p->qs, p->qh, b, false);
}
static const int_unpacker ints_iq3_ks = {CODES_UNSIGNED, VECTORS_HALVES, 1, true, false, int_scales_iq3_ks,
                                         int_codes_iq3_ks};

/* ---- codebooks of 16, 32 and 64 ---------------------------------------------------------------------------------- */

IQ_INLINE int_scales int_scales_iq4_k(const uint8_t *block) { return int_scales_4_2(block, VECTORS_NIBBLES); }
IQ_INLINE code_pair int_codes_iq4_k(const uint8_t *block, int b) {
    return look_up(lut16_s8(iq4_values), nibbles_16_apart(((const block_iq4_k *)block)->qs, b));
}
static const int_unpacker ints_iq4_k = {CODES_SIGNED, VECTORS_NIBBLES, IQ4_SHIFT, false, false, int_scales_iq4_k,
                                         int_codes_iq4_k};

IQ_INLINE int_scales int_scales_iq4_ks(const uint8_t *block) { return int_scales_ks(block, VECTORS_NIBBLES); }
IQ_INLINE code_pair int_codes_iq4_ks(const uint8_t *block, int b) {
    return look_up(lut16_s8(iq4_values), nibbles_16_apart(((const block_iq4_ks *)block)->qs, b));
}
static const int_unpacker ints_iq4_ks = {CODES_SIGNED, VECTORS_NIBBLES, IQ4_SHIFT, true, false, int_scales_iq4_ks,
                                         int_codes_iq4_ks};

IQ_INLINE int_scales int_scales_iq5_k(const uint8_t *block) { return int_scales_4_2(block, VECTORS_HALVES); }
IQ_INLINE code_pair int_codes_iq5_k(const uint8_t *block, int b) {
    const block_iq5_k *p = (const block_iq5_k *)block;
    return look_up_5bit(p->qs, p->qh, b);
}
static const int_unpacker ints_iq5_k = {CODES_SIGNED, VECTORS_HALVES, IQ5_SHIFT, false, false, int_scales_iq5_k,
                                         int_codes_iq5_k};

IQ_INLINE int_scales int_scales_iq5_ks(const uint8_t *block) { return int_scales_ks(block, VECTORS_HALVES); }
IQ_INLINE code_pair int_codes_iq5_ks(const uint8_t *block, int b) {
    const block_iq5_ks *p = (const block_iq5_ks *)block;
    return look_up_5bit(p->qs, p->qh, b);
}
static const int_unpacker ints_iq5_ks = {CODES_SIGNED, VECTORS_HALVES, IQ5_SHIFT, true, false, int_scales_iq5_ks,
                                         int_codes_iq5_ks};

IQ_INLINE int_scales int_scales_iq6_k(const uint8_t *block) {
    const block_iq6_k *b = (const block_iq6_k *)block;
    const __m256i scale = words_of(_mm_loadu_si128((const __m128i *)b->scales));
    return with_d(shifted_scales(scale, words_set(iq_load_u16(b->extra), VECTORS_HALVES)), b->d);
}
IQ_INLINE code_pair int_codes_iq6_k(const uint8_t *block, int b) {
    const block_iq6_k *p = (const block_iq6_k *)block;
    const code_pair low = nibbles_32_apart(p->qs, b), high = upper_crumbs(p->qh, false);
    const lut64 t = lut64_s8(iq6_values);
    return (code_pair){lookup64(low.x, high.x, 2 * b, t), lookup64(low.y, high.y, 2 * b, t)};
}
static const int_unpacker ints_iq6_k = {CODES_SIGNED, VECTORS_HALVES, IQ6_SHIFT, false, false, int_scales_iq6_k,
                                         int_codes_iq6_k};

/* ---- K types: the codes are their values ------------------------------------------------------------------------- */

IQ_INLINE int_scales int_scales_q4_k(const uint8_t *block) {
    const block_q4_k *b = (const block_q4_k *)block;
    return int_scales_k(b->scales, b->d, b->dmin);
}
IQ_INLINE code_pair int_codes_q4_k(const uint8_t *block, int b) {
    return nibbles_32_apart(((const block_q4_k *)block)->qs, b);
}
static const int_unpacker ints_q4_k = {CODES_U6, VECTORS_HALVES, 1, true, false, int_scales_q4_k,
                                         int_codes_q4_k};

IQ_INLINE int_scales int_scales_q5_k(const uint8_t *block) {
    const block_q5_k *b = (const block_q5_k *)block;
    return int_scales_k(b->scales, b->d, b->dmin);
}
IQ_INLINE code_pair int_codes_q5_k(const uint8_t *block, int b) {
    const block_q5_k *p = (const block_q5_k *)block;
    const code_pair low = nibbles_32_apart(p->qs, b), high = upper_bits(p->qh, false);
    return (code_pair){join_bits(low.x, high.x, b, 16), join_bits(low.y, high.y, b, 16)};
}
static const int_unpacker ints_q5_k = {CODES_U6, VECTORS_HALVES, 1, true, false, int_scales_q5_k,
                                         int_codes_q5_k};

IQ_INLINE int_scales int_scales_q6_k(const uint8_t *block) {
    const block_q6_k *b = (const block_q6_k *)block;
    const __m256i scale = words_of(_mm_loadu_si128((const __m128i *)b->scales));
    const __m256i offset = _mm256_mullo_epi16(scale, _mm256_set1_epi16(-32));
    return with_d((int_scales){.scale = scale, .offset = offset}, b->d);
}
IQ_INLINE code_pair int_codes_q6_k(const uint8_t *block, int b) {
    const block_q6_k *p = (const block_q6_k *)block;
    const uint8_t *ql = p->ql + 32 * (b % 2);
    const code_pair high = upper_crumbs(p->qh, true);
    const code_pair bytes = mix((code_pair){join16(ql, ql + 64), join16(ql + 16, ql + 80)}, true);
    const code_pair low = nibbles_of_pair(bytes, b >= 2);
    return (code_pair){join_bits(low.x, high.x, 2 * b, 48), join_bits(low.y, high.y, 2 * b, 48)};
}
static const int_unpacker ints_q6_k = {CODES_U6, VECTORS_HALVES, 1, false, true, int_scales_q6_k,
                                         int_codes_q6_k};
