/* What formats share of their contribution to gemv_avx2_shape.inc.h. The layouts are those of format/<format>.h; a
 * vector joins what belongs to the same columns of the superblock's halves. */

/* ---- layouts of codes: 32-blocks b and b + 4 --------------------------------------------------------------------- */

/* 16 bytes at a and 16 at b >= a + 16. Not vinserti128, which needs a pipe that the look-ups need. */
IQ_INLINE __m256i join16(const uint8_t *a, const uint8_t *b) {
    return _mm256_blend_epi32(load32(a), load32(b - 16), 0xf0);
}
IQ_INLINE __m256i nibble_of(__m256i bytes, bool high) {
    return _mm256_and_si256(high ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
}
/* Bits of each byte moved from bit `from` to bit `to`; those shifted in are undefined. */
IQ_INLINE __m256i bits_to(__m256i a, int from, int to) {
    return from > to ? _mm256_srli_epi16(a, from - to) : from < to ? _mm256_slli_epi16(a, to - from) : a;
}
IQ_INLINE __m256i bits_of(__m256i a, int mask) { return _mm256_and_si256(a, _mm256_set1_epi8((char)mask)); }

IQ_INLINE code_pair nibbles_of_pair(code_pair p, bool high) {
    return (code_pair){nibble_of(p.x, high), nibble_of(p.y, high)};
}

/* qs[32h + j], weights 32b + j of half h at bits 2b: the bits of block b in a nibble, at its bits 0..1 or 2..3 */
IQ_INLINE code_pair crumb_nibbles(const uint8_t *qs, int b, bool mixed) {
    return nibbles_of_pair(mix((code_pair){join16(qs, qs + 32), join16(qs + 16, qs + 48)}, mixed), b >= 2);
}
/* Byte 16n + j: the weights j of sub-blocks 2n (low nibble) and 2n + 1; VECTORS_NIBBLES */
IQ_INLINE code_pair nibbles_16_apart(const uint8_t *qs, int b) {
    __m256i bytes = load32(qs + 32 * b);
    KEEP_ORDER(bytes); /* or gcc loads them twice, and loads are what limits */
    return (code_pair){nibble_of(bytes, false), nibble_of(bytes, true)};
}
/* Byte 32c + j: the weights j of 32-blocks 2c (low nibble) and 2c + 1 */
IQ_INLINE code_pair nibbles_32_apart(const uint8_t *qs, int b) {
    const uint8_t *p = qs + 32 * (b / 2);
    return nibbles_of_pair((code_pair){join16(p, p + 64), join16(p + 16, p + 80)}, b % 2);
}
/* Byte j, bit n: one more bit of weight j of 32-block n; here at bit b of each byte */
IQ_INLINE __m256i upper_bit(const uint8_t *qh) {
    const __m256i by = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
    return _mm256_srlv_epi32(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)qh)), by);
}
IQ_INLINE code_pair upper_bits(const uint8_t *qh, bool mixed) {
    return mix((code_pair){upper_bit(qh), upper_bit(qh + 16)}, mixed);
}
/* Byte 32h + j, bits 2b: two more bits of weight 32b + j of half h */
IQ_INLINE code_pair upper_crumbs(const uint8_t *qh, bool mixed) {
    return mix((code_pair){join16(qh, qh + 32), join16(qh + 16, qh + 48)}, mixed);
}

IQ_INLINE code_pair look_up(lut16 t, code_pair index) {
    return (code_pair){lookup16(index.x, t), lookup16(index.y, t)};
}
/* Indices of two pairs: the first at bits 0..2, the second at 4..6. vpshufb ignores bits 4..6; bits 3 and 7 are zero.
 * Of `crumbs`, a nibble, come the two lower bits of each, of `high`, another, bits `at` and at + 1. */
IQ_INLINE __m256i indices_3bit(__m256i crumbs, __m256i high, int at) {
    static const int8_t of_crumbs[16] = {0, 1, 2, 3, 16, 17, 18, 19, 32, 33, 34, 35, 48, 49, 50, 51};
    static const int8_t of_high[2][16] = {{0, 4, 64, 68, 0, 4, 64, 68, 0, 4, 64, 68, 0, 4, 64, 68},
                                          {0, 0, 0, 0, 4, 4, 4, 4, 64, 64, 64, 64, 68, 68, 68, 68}};
    const __m256i upper = lookup16(nibble_of(high, false), lut16_u7(of_high[at / 2]));
    return _mm256_or_si256(lookup16(crumbs, lut16_u7(of_crumbs)), upper);
}
IQ_INLINE code_pair look_up_3bit(const int8_t *table, const uint8_t *qs, const uint8_t *qh, int b, bool mixed) {
    const code_pair low = crumb_nibbles(qs, b, mixed), high = upper_bits(qh, mixed);
    const int at = b / 2 * 2;
    const code_pair both = {indices_3bit(low.x, high.x, at), indices_3bit(low.y, high.y, at)};
    const code_pair second = {_mm256_srli_epi16(both.x, 4), _mm256_srli_epi16(both.y, 4)};
    return look_up(lut16_u7(table), b % 2 ? second : both);
}
IQ_INLINE code_pair look_up_5bit(const uint8_t *qs, const uint8_t *qh, int b) {
    const code_pair low = nibbles_32_apart(qs, b), high = upper_bits(qh, false);
    const lut32 t = lut32_s8(iq5_values);
    return (code_pair){lookup32(low.x, high.x, b, t), lookup32(low.y, high.y, b, t)};
}
IQ_INLINE __m256i join_bits(__m256i nibble, __m256i high, int at, int mask) {
    return _mm256_or_si256(nibble, bits_of(bits_to(high, at, 4), mask));
}

/* ---- scales ------------------------------------------------------------------------------------------------------ */

IQ_INLINE __m256 splat_f16(const uint8_t *p) { return _mm256_cvtph_ps(_mm_set1_epi16((short)iq_load_u16(p))); }
IQ_INLINE __m256i words_of(__m128i bytes) { return _mm256_cvtepi8_epi16(bytes); }
IQ_INLINE __m128i each_twice(__m128i bytes) { return _mm_unpacklo_epi8(bytes, bytes); }
IQ_INLINE __m128i low8(uint64_t bytes) { return _mm_cvtsi64_si128((long long)bytes); }

/* The first 16 bytes of a superblock, in either half. Scales are taken out of them: a byte to the top of each word, the
 * bits in question to its top, and what is below them shifted out. */
IQ_INLINE __m256i header_of(const uint8_t *block) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)block));
}
#define TOP_BYTE(n) (short)((unsigned)(n) << 8 | 0x80)

/* Nibbles of 8 bytes from byte `at` of the header on, one per sub-block */
IQ_INLINE __m256i nibbles_on_top(__m256i header, vector_order order, int at) {
#define BYTE_OF_TWO(n) TOP_BYTE(at + (n) / 2)
#define NIBBLE_UP(n) ((n) % 2 ? 1 : 16)
    const __m256i bytes = _mm256_shuffle_epi8(header, SUB_BLOCK_WORDS(order, BYTE_OF_TWO));
    return _mm256_mullo_epi16(bytes, SUB_BLOCK_WORDS(order, NIBBLE_UP));
}
/* Two bits per sub-block in 4 bytes */
IQ_INLINE __m256i crumbs_on_top(__m256i header, vector_order order, int at) {
#define BYTE_OF_FOUR(n) TOP_BYTE(at + (n) / 4)
#define CRUMB_UP(n) (64 >> 2 * ((n) % 4))
    const __m256i bytes = _mm256_shuffle_epi8(header, SUB_BLOCK_WORDS(order, BYTE_OF_FOUR));
    return _mm256_mullo_epi16(bytes, SUB_BLOCK_WORDS(order, CRUMB_UP));
}
/* The words whose bit of `bits` is set: all ones */
IQ_INLINE __m256i words_set(uint32_t bits, vector_order order) {
#define BIT(n) (short)(1u << (n))
    const __m256i bit = SUB_BLOCK_WORDS(order, BIT);
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)bits), bit), bit);
}
/* The same, a bit for each 32-block; VECTORS_HALVES */
IQ_INLINE __m256i word_pairs_set(uint32_t bits) {
#define BLOCK_BIT(n) (1 << (n) / 2)
    const __m256i bit = SUB_BLOCK_WORDS(VECTORS_HALVES, BLOCK_BIT);
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)bits), bit), bit);
}

/* scale * (base + (set ? shift : 0)), of codes that were moved up */
IQ_INLINE int_scales moved_scales(__m256i scale, __m256i set, int base, int shift) {
    const __m256i moved = _mm256_and_si256(set, _mm256_set1_epi16((short)shift));
    const __m256i offset = _mm256_add_epi16(moved, _mm256_set1_epi16((short)base));
    return (int_scales){.scale = scale, .offset = _mm256_mullo_epi16(scale, offset)};
}
/* Of CODES_SIGNED: int_unpacker has the shift. */
IQ_INLINE int_scales shifted_scales(__m256i scale, __m256i set) {
    return (int_scales){.scale = scale, .offset = _mm256_and_si256(scale, set)};
}
IQ_INLINE int_scales with_d(int_scales s, const uint8_t *d) {
    s.d = splat_f16(d);
    return s;
}

/* IQ4_K, IQ5_K: a nibble and two upper bits per sub-block, minus 32. */
IQ_INLINE int_scales int_scales_4_2(const uint8_t *block, vector_order order) {
    const block_iq4_k *b = (const block_iq4_k *)block;
    const __m256i header = header_of(block);
    const __m256i low = nibbles_on_top(header, order, offsetof(block_iq4_k, scales_l));
    const __m256i high = crumbs_on_top(header, order, offsetof(block_iq4_k, scales_h));
    const __m256i high4 = _mm256_and_si256(_mm256_srli_epi16(high, 10), _mm256_set1_epi16(0x30));
    const __m256i both = _mm256_or_si256(_mm256_srli_epi16(low, 12), high4);
    const __m256i scale = _mm256_add_epi16(both, _mm256_set1_epi16(-32));
    return with_d(shifted_scales(scale, words_set(iq_load_u16(b->extra), order)), b->d);
}
_Static_assert(offsetof(block_iq5_k, scales_l) == offsetof(block_iq4_k, scales_l), "int_scales_4_2 serves both");
_Static_assert(offsetof(block_iq5_k, scales_h) == offsetof(block_iq4_k, scales_h), "int_scales_4_2 serves both");

/* IQ2_KS, IQ3_KS: a nibble and a fifth bit per 32-block, minus 16. */
IQ_INLINE __m256i fifth_joined(__m256i nibbles, uint32_t fifth) {
    const __m256i missing = _mm256_andnot_si256(word_pairs_set(fifth), _mm256_set1_epi16(16));
    return _mm256_sub_epi16(nibbles, missing);
}
/* IQ4_KS, IQ5_KS: see scales_ks. */
IQ_INLINE int_scales int_scales_ks(const uint8_t *block, vector_order order) {
#define BYTE_ALONE(n) (short)(0x8000u | (unsigned)(n) / 2)
    const __m256i words = _mm256_shuffle_epi8(header_of(block), SUB_BLOCK_WORDS(order, BYTE_ALONE));
    const __m256i even = _mm256_and_si256(words, _mm256_set1_epi16(254));
    const __m256i scale = _mm256_add_epi16(even, _mm256_set1_epi16(-127));
    const __m256i set = _mm256_and_si256(words, _mm256_set1_epi16(1));
    return (int_scales){.scale = scale, .offset = _mm256_mullo_epi16(scale, set)};
}
/* Q4_K, Q5_K: eight scales and eight minima. */
IQ_INLINE int_scales int_scales_k(const uint8_t *packed, const uint8_t *d, const uint8_t *dmin) {
    uint64_t scales, mins;
    k_scale_bytes(packed, &scales, &mins);
    int_scales s = {.scale = words_of(each_twice(low8(scales))), .offset = words_of(each_twice(low8(mins)))};
    s.dmin = splat_f16(dmin);
    return with_d(s, d);
}
