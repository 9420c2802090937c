/* Encoders of IQ2_K, IQ2_KS and IQ2_KL. */
#include "format/codebooks.h"
#include "format/iq2_k.h"
#include "format/iq2_kl.h"
#include "format/iq2_ks.h"
#include "quantize/encoders.h"
#include "quantize/pack.h"
#include "quantize/scaled.h"

static void make_book(iq_book *book) { iq_book_make_int8(book, IQ_BOOK_4, iq2_values, 4, IQ2_SHIFT); }
static void make_pair_book(iq_book *book) { iq_book_make_pairs(book, iq2_kl_pairs); }

static void pack_iq2_k(const iq_superblock *s, uint8_t *block) {
    block_iq2_k *b = (block_iq2_k *)block;
    int16_t scale[16];
    for (int sb = 0; sb < 16; sb++) scale[sb] = (int16_t)(s->k[sb] + 8);
    iq_store_u16(b->d, s->d);
    iq_store_u16(b->extra, s->shifted);
    iq_pack_scale_nibbles(scale, 16, b->scales);
    iq_pack_2bit(s->code, b->qs);
}

static void pack_iq2_ks(const iq_superblock *s, uint8_t *block) {
    block_iq2_ks *b = (block_iq2_ks *)block;
    int16_t scale[8];
    unsigned high = 0;
    for (int sb = 0; sb < 8; sb++) {
        scale[sb] = (int16_t)(s->k[sb] + 16);
        high |= (unsigned)(scale[sb] >> 4 & 1) << sb;
    }
    b->extra[0] = (uint8_t)s->shifted;
    b->extra[1] = (uint8_t)high;
    iq_pack_scale_nibbles(scale, 8, b->scales);
    iq_pack_2bit(s->code, b->qs);
}

/* The index of pair p of sub-block sb stands at code[32 sb + p]. */
static void pack_iq2_kl(const iq_superblock *s, uint8_t *block) {
    block_iq2_kl *b = (block_iq2_kl *)block;
    unsigned scales_h = 0;
    for (int sb = 0; sb < 8; sb++) scales_h |= (unsigned)((s->k[sb] + 32) >> 4) << 2 * sb;
    iq_store_u16(b->scales_h, (uint16_t)scales_h);
    for (int i = 0; i < 4; i++) b->scales_l[i] = (uint8_t)(((s->k[i] + 32) & 15) | ((s->k[i + 4] + 32) & 15) << 4);
    memset(b->qh, 0, sizeof b->qh);
    for (int sb = 0; sb < 8; sb += 2) {
        const uint8_t *even = s->code + 32 * sb, *odd = even + 32;
        for (int p = 0; p < 16; p++) {
            b->qs[8 * sb + p] = (uint8_t)((even[p] & 15) | (odd[p] & 15) << 4);
            b->qh[p] |= (uint8_t)(even[p] >> 4 << sb | odd[p] >> 4 << (sb + 1));
        }
    }
}

const iq_scaled_format iq2_k_scaled = {
    .make_book = make_book,
    .rule = {.k_lowest = -8, .k_highest = 7, .step = 1},
    .sub = 16,
    .block_bytes = sizeof(block_iq2_k),
    .pack = pack_iq2_k,
};

const iq_scaled_format iq2_ks_scaled = {
    .make_book = make_book,
    .rule = {.k_lowest = -16, .k_highest = 15, .step = 1},
    .sub = 32,
    .block_bytes = sizeof(block_iq2_ks),
    .row_meta_bytes = IQ2_KS_ROW_META,
    .pack = pack_iq2_ks,
};

const iq_scaled_format iq2_kl_scaled = {
    .make_book = make_pair_book,
    .rule = {.k_lowest = -32, .k_highest = 31, .step = 1},
    .sub = 32,
    .block_bytes = sizeof(block_iq2_kl),
    .row_meta_bytes = IQ2_KL_ROW_META,
    .pack = pack_iq2_kl,
};
