/* What a format contributes to the matmul shapes, and the code layouts that several formats share.
 * Written in the vocabulary of isa/ops_<isa>.h; each kernel/unpack_<format>.inc.h defines one `unpacker`. */

typedef enum {
    CODES_U7, /* 0..127: raw codes, or codebook values moved up; the offset takes it back */
    CODES_S8, /* -127..127, plus LANE_BIAS */
    CODES_I8, /* -128..127, plus LANE_BIAS */
} code_range;

/* A weight is sw * (code + offset), or sw * code + offset in a format with minima. */
typedef struct {
    size_t superblock_bytes; /* 256 weights: one block, or eight of the small ones */
    size_t row_meta_bytes;
    iq_slot_order order;
    code_range range;
    bool wide;    /* the two slots of a 32-block always share sw and offset */
    bool has_min; /* offset is absolute */
    f32x16 (*row_scale)(const uint8_t *row);
    void (*scales)(const uint8_t *superblock, f32x16 row_scale, f32x16 *sw, f32x16 *offset); /* in lane order */
    lanes64 (*codes64)(const uint8_t *superblock, int chunk);                                /* in slot order */
    /* May be NULL; read where TILE_FOLDS is defined. If all products of a scale and a code differ by even numbers
     * within a slot and fit into 9 bits, a weight is d * (2 * (code - TILE_BIAS) + odd): fold gives d, odd (a bit per
     * lane), and what folded64 looks codes up in. */
    lanes64 (*fold)(const uint8_t *superblock, float *d, uint16_t *odd);
    lanes64 (*folded64)(const uint8_t *superblock, lanes64 table, int chunk); /* in slot order */
} unpacker;

#define SMALL_BLOCKS 8 /* blocks of 32 weights in a superblock of the small formats */

/* What IQ_CODES_S8 and _I8 need as offset for `value` (0, or the shift of the second codebook). */
#define SIGNED_OFFSET(value) ((float)((value)-LANE_BIAS))

IQ_INLINE f32x16 row_scale_none(const uint8_t *row) {
    (void)row;
    return f32x16_zero();
}
IQ_INLINE f32x16 row_scale_f16(const uint8_t *row) { return f32x16_splat_f16(row); }
IQ_INLINE f32x16 row_scale_f32(const uint8_t *row) { return f32x16_set1(iq_load_f32(row)); }

/* ---- 2-bit codes: half h of the superblock in qs[32h..], group g of 32 weights at bits 2g; order HALVES --------- */

/* Tables of 16 ignore the other two bits of a nibble: one for the group at bits 0..1, one for that at bits 2..3. */
typedef struct {
    alignas(16) int8_t low[16], high[16];
} table_2bit;

#define TABLE_2BIT(a, b, c, d)                                                                                         \
    {                                                                                                                  \
        {a, b, c, d, a, b, c, d, a, b, c, d, a, b, c, d}, { a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d }           \
    }

IQ_INLINE lanes64 codes_2bit(const uint8_t *qs, const table_2bit *table, int chunk) {
    const lanes64 bytes = v_load(qs);
    const lanes64 index = chunk < 2 ? v_index_low4(bytes) : v_index_high4(bytes);
    return v_lut16(lut16_u7(chunk % 2 ? table->high : table->low), index);
}

/* ---- 3-bit codes: 2-bit codes, and bit G of qh[j] as high bit of weight 32G + j; order HALVES ------------------- */

/* Index bits, from the top: low  = any, high bit, two low bits; high = two low bits, high bit, any. */
typedef struct {
    alignas(16) int8_t low[16], high[16];
} table_3bit;

#define TABLE_3BIT(a, b, c, d, e, f, g, h)                                                                             \
    {                                                                                                                  \
        {a, b, c, d, e, f, g, h, a, b, c, d, e, f, g, h}, { a, a, e, e, b, b, f, f, c, c, g, g, d, d, h, h }           \
    }

IQ_INLINE lanes64 codes_3bit(const uint8_t *qs, const uint8_t *qh, const table_3bit *table, int chunk) {
    const lanes64 bytes = v_load(qs), high = v_load32_twice(qh, 4); /* the chunk's high bits are bit `chunk` */
    const lanes64 low = chunk < 2 ? v_index_low4(bytes) : v_index_high4(bytes);
    switch (chunk) {
    case 0:
        return v_lut16(lut16_u7(table->low), v_index(low, 3, v_shl(high, 2), 4));
    case 1:
        return v_lut16(lut16_u7(table->high), v_index(low, 12, high, 4));
    case 2:
        return v_lut16(lut16_u7(table->low), v_index(low, 3, high, 4));
    default:
        return v_lut16(lut16_u7(table->high), v_index(low, 12, v_shr(high, 2), 4));
    }
}

/* ---- nibbles: 64 bytes hold two chunks, low nibbles, then high nibbles ------------------------------------------ */

IQ_INLINE lanes64 index_nibbles(lanes64 bytes, int chunk) {
    return chunk % 2 ? v_index_high4(bytes) : v_index_low4(bytes);
}
IQ_INLINE lanes64 codes_nibbles(lanes64 bytes, int chunk) { return chunk % 2 ? v_high4(bytes) : v_low4(bytes); }

/* Fifth bits for NIBBLE32: bit G of qh[j] is that of weight 32G + j. They stand at bit fifth_bit(chunk) of the result. */
IQ_INLINE int fifth_bit(int chunk) { return 4 * (chunk / 2) + chunk % 2; }
IQ_INLINE lanes64 fifth_bits(const uint8_t *qh) { return v_load32_twice(qh, 2); } /* of the second half: 2 bits on */
IQ_INLINE lanes64 to_bit4(lanes64 a, int bit) { return bit <= 4 ? v_shl(a, 4 - bit) : v_shr(a, bit - 4); }

/* Through tables of 32 or 64: four bits of the index are the nibbles `low`, the rest those of `high` from `at` on. */
#ifndef LUT_JOINED
IQ_INLINE lanes64 v_lut32_joined(lut32 t, lanes64 low, lanes64 high, int at) {
    return v_lut32(t, v_index(low, 15, to_bit4(high, at), 5));
}
IQ_INLINE lanes64 v_lut64_joined(lut64 t, lanes64 low, lanes64 high, int at) {
    return v_lut64(t, v_index(low, 15, to_bit4(high, at), 6));
}
#endif

/* ---- scales ----------------------------------------------------------------------------------------------------- */

/* The codebook's offset, plus `shift` where the sub-block's bit is set. The K types keep these bits in a u16 behind the
 * fp16 d at the start of the block: read as one word. */
IQ_INLINE f32x16 offset_shifted(const uint8_t *block, iq_slot_order order, float base, int shift) {
    return slots_choose(iq_load_u32(block), 16, order, f32x16_set1(base), f32x16_set1(base + (float)shift));
}
/* The same for 32-blocks: bits first ... first + 7 of a word. */
IQ_INLINE f32x16 offset_pair_shifted(uint32_t word, int first, iq_slot_order order, float base, int shift) {
    return slots_pair_choose(word, first, order, f32x16_set1(base), f32x16_set1(base + (float)shift));
}

/* IQ4_K, IQ5_K: a nibble and two upper bits per sub-block, minus 32. */
IQ_INLINE f32x16 scales_4_2(const uint8_t *low, const uint8_t *high, iq_slot_order order) {
    return slots_6bit_values(iq_load_u64(low), iq_load_u32(high), order);
}

/* IQ4_KS, IQ4_KSS, IQ5_KS: a byte per 32-block, bits 1..7 the scale + 127, bit 0 the codebook. */
IQ_INLINE void scales_ks(uint64_t bytes, iq_slot_order order, int shift, f32x16 row_scale, f32x16 *sw, f32x16 *offset) {
    const slots s = slots_pair_bytes(bytes, order);
    *sw = f32x16_mul(row_scale, slots_f32(slots_add(slots_and(s, 254), -127)));
    *offset = slots_odd_choose(s, f32x16_set1(SIGNED_OFFSET(0)), f32x16_set1(SIGNED_OFFSET(shift)));
}

/* Q4_K, Q5_K: see format/k_scales.h; eight scales and eight minima as bytes. */
IQ_INLINE void k_scale_bytes(const uint8_t *packed, uint64_t *scales, uint64_t *mins) {
    const uint32_t a = iq_load_u32(packed), b = iq_load_u32(packed + 4), c = iq_load_u32(packed + 8);
    const uint32_t scale_high = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
    const uint32_t min_high = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    *scales = (a & 0x3f3f3f3f) | (uint64_t)scale_high << 32;
    *mins = (b & 0x3f3f3f3f) | (uint64_t)min_high << 32;
}
IQ_INLINE void scales_k(const uint8_t *packed, const uint8_t *d, const uint8_t *dmin, f32x16 *sw, f32x16 *offset) {
    uint64_t scales, mins;
    k_scale_bytes(packed, &scales, &mins);
    *sw = f32x16_mul(f32x16_splat_first_f16(d), slots_f32(slots_pair_bytes(scales, IQ_ORDER_NIBBLE32)));
    const f32x16 min = f32x16_mul(f32x16_splat_first_f16(dmin), slots_f32(slots_pair_bytes(mins, IQ_ORDER_NIBBLE32)));
    *offset = f32x16_sub(f32x16_zero(), min);
}

/* IQ3_KS, IQ2_KL: nibble of 32-block b in the low half of byte b for b < 4, in the high half of byte b - 4 else. */
IQ_INLINE uint64_t split_nibbles(uint32_t word) {
    return (word & 0x0f0f0f0f) | (uint64_t)(word >> 4 & 0x0f0f0f0f) << 32;
}

/* 8 bits, one per 32-block, to bit 4 of the eight bytes of a word. */
IQ_INLINE uint64_t spread_bits(uint32_t bits) {
    const uint64_t each = (uint64_t)(bits & 255) * 0x0101010101010101 & 0x8040201008040201;
    return (each + 0x00406070787c7e7f) >> 3 & 0x1010101010101010; /* a set bit k carries into bit 7 */
}

/* Q5_0, Q5_1: the fifth bits of weights 0..15 (or 16..31) of four blocks. */
IQ_INLINE uint64_t small_fifth_bits(const uint8_t *qh, size_t stride, int high) {
    uint64_t bits = 0;
    for (size_t i = 0; i < 4; i++) bits |= (uint64_t)iq_load_u16(qh + stride * i + 2 * (size_t)high) << 16 * i;
    return bits;
}
