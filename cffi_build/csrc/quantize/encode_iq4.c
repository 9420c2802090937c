/* Encoders of IQ4_K, IQ4_KS and IQ4_KSS. */
#include "format/codebooks.h"
#include "format/iq4_k.h"
#include "format/iq4_ks.h"
#include "format/iq4_kss.h"
#include "quantize/encoders.h"
#include "quantize/pack.h"
#include "quantize/scaled.h"

static void make_book(iq_book *book) { iq_book_make_int8(book, IQ_BOOK_16, iq4_values, 16, IQ4_SHIFT); }
static void make_parity_book(iq_book *book) { iq_book_make_parity(book, iq4_values, IQ4_SHIFT); }

static void pack_iq4_k(const iq_superblock *s, uint8_t *block) {
    block_iq4_k *b = (block_iq4_k *)block;
    int16_t scale[16];
    for (int sb = 0; sb < 16; sb++) scale[sb] = (int16_t)(s->k[sb] + 32);
    iq_store_u16(b->d, s->d);
    iq_store_u16(b->extra, s->shifted);
    iq_pack_scale_nibbles(scale, 16, b->scales_l);
    iq_pack_scale_pairs(scale, 16, b->scales_h);
    iq_pack_nibbles(s->code, IQ_SUPERBLOCK, 16, b->qs);
}

static void pack_iq4_ks(const iq_superblock *s, uint8_t *block) {
    block_iq4_ks *b = (block_iq4_ks *)block;
    iq_pack_odd_scales(s->k, s->shifted, b->scales);
    iq_pack_nibbles(s->code, IQ_SUPERBLOCK, 16, b->qs);
}

/* Undoes t ^= t >> 1, whose input has bit 0 clear: bit i of t is the parity of the codes' bits i..15. The search chose
 * codes with an even number of bits, so bit 0 is free for the scale. */
static uint16_t hide_bit(unsigned codes, unsigned bit) {
    unsigned t = codes;
    t ^= t >> 1;
    t ^= t >> 2;
    t ^= t >> 4;
    t ^= t >> 8;
    return (uint16_t)((t & 0xfffeu) | bit);
}

static void pack_iq4_kss(const iq_superblock *s, uint8_t *block) {
    uint8_t nibbles[128], scales[8];
    iq_pack_odd_scales(s->k, s->shifted, scales);
    iq_pack_nibbles(s->code, IQ_SUPERBLOCK, 16, nibbles);
    for (int i = 0; i < 128; i += 2) {
        const unsigned bit = scales[i / 16] >> i % 16 / 2 & 1;
        iq_store_u16(block + i, hide_bit(iq_load_u16(nibbles + i), bit));
    }
}

const iq_scaled_format iq4_k_scaled = {
    .make_book = make_book,
    .rule = {.k_lowest = -32, .k_highest = 31, .step = 1},
    .sub = 16,
    .block_bytes = sizeof(block_iq4_k),
    .pack = pack_iq4_k,
};

const iq_scaled_format iq4_ks_scaled = {
    .make_book = make_book,
    .rule = {.k_lowest = -64, .k_highest = 63, .step = 2, .phase = 1, .d_is_f32 = true},
    .sub = 32,
    .block_bytes = sizeof(block_iq4_ks),
    .row_meta_bytes = IQ4_KS_ROW_META,
    .pack = pack_iq4_ks,
};

const iq_scaled_format iq4_kss_scaled = {
    .make_book = make_parity_book,
    .rule = {.k_lowest = -64, .k_highest = 63, .step = 2, .phase = 1, .d_is_f32 = true},
    .sub = 32,
    .block_bytes = sizeof(block_iq4_kss),
    .row_meta_bytes = IQ4_KSS_ROW_META,
    .pack = pack_iq4_kss,
};
