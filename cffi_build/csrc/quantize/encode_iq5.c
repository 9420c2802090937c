/* Encoders of IQ5_K and IQ5_KS. */
#include "format/codebooks.h"
#include "format/iq5_k.h"
#include "format/iq5_ks.h"
#include "quantize/encoders.h"
#include "quantize/pack.h"
#include "quantize/scaled.h"

static void make_book(iq_book *book) { iq_book_make_int8(book, IQ_BOOK_32, iq5_values, 32, IQ5_SHIFT); }

static void pack_iq5_k(const iq_superblock *s, uint8_t *block) {
    block_iq5_k *b = (block_iq5_k *)block;
    int16_t scale[16];
    for (int sb = 0; sb < 16; sb++) scale[sb] = (int16_t)(s->k[sb] + 32);
    iq_store_u16(b->d, s->d);
    iq_store_u16(b->extra, s->shifted);
    iq_pack_scale_nibbles(scale, 16, b->scales_l);
    iq_pack_scale_pairs(scale, 16, b->scales_h);
    iq_pack_nibbles(s->code, IQ_SUPERBLOCK, 32, b->qs);
    iq_pack_high_bit(s->code, 4, b->qh);
}

static void pack_iq5_ks(const iq_superblock *s, uint8_t *block) {
    block_iq5_ks *b = (block_iq5_ks *)block;
    iq_pack_odd_scales(s->k, s->shifted, b->scales);
    iq_pack_nibbles(s->code, IQ_SUPERBLOCK, 32, b->qs);
    iq_pack_high_bit(s->code, 4, b->qh);
}

const iq_scaled_format iq5_k_scaled = {
    .make_book = make_book,
    .rule = {.k_lowest = -32, .k_highest = 31, .step = 1},
    .sub = 16,
    .block_bytes = sizeof(block_iq5_k),
    .pack = pack_iq5_k,
};

const iq_scaled_format iq5_ks_scaled = {
    .make_book = make_book,
    .rule = {.k_lowest = -64, .k_highest = 63, .step = 2, .phase = 1, .d_is_f32 = true},
    .sub = 32,
    .block_bytes = sizeof(block_iq5_ks),
    .row_meta_bytes = IQ5_KS_ROW_META,
    .pack = pack_iq5_ks,
};
