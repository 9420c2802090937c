/* Encoders of IQ3_K and IQ3_KS. */
#include "format/codebooks.h"
#include "format/iq3_k.h"
#include "format/iq3_ks.h"
#include "quantize/encoders.h"
#include "quantize/pack.h"
#include "quantize/scaled.h"

static void make_book(iq_book *book) { iq_book_make_int8(book, IQ_BOOK_8, iq3_values, 8, IQ3_SHIFT); }

/* The scale 2k + 1 as a sign bit and n = (|2k + 1| - 1) / 2. */
static void pack_iq3_k(const iq_superblock *s, uint8_t *block) {
    block_iq3_k *b = (block_iq3_k *)block;
    int16_t size[16];
    unsigned negative = 0;
    for (int sb = 0; sb < 16; sb++) {
        const int k = s->k[sb];
        size[sb] = (int16_t)(k < 0 ? -k - 1 : k);
        negative |= (unsigned)(k < 0) << sb;
    }
    iq_store_u16(b->d, s->d);
    iq_store_u16(b->extra, s->shifted);
    iq_store_u16(b->scales_h, (uint16_t)negative);
    iq_pack_scale_nibbles(size, 16, b->scales_l);
    iq_pack_2bit(s->code, b->qs);
    iq_pack_high_bit(s->code, 2, b->qh);
}

static void pack_iq3_ks(const iq_superblock *s, uint8_t *block) {
    block_iq3_ks *b = (block_iq3_ks *)block;
    unsigned high = 0;
    for (int sb = 0; sb < 8; sb++) high |= (unsigned)(s->k[sb] + 16) >> 4 << sb;
    for (int i = 0; i < 4; i++) {
        b->scales[i] = (uint8_t)(((s->k[i] + 16) & 15) | ((s->k[i + 4] + 16) & 15) << 4);
    }
    b->extra[0] = (uint8_t)high;
    b->extra[1] = (uint8_t)s->shifted;
    iq_pack_2bit(s->code, b->qs);
    iq_pack_high_bit(s->code, 2, b->qh);
}

const iq_scaled_format iq3_k_scaled = {
    .make_book = make_book,
    .rule = {.k_lowest = -16, .k_highest = 15, .step = 2, .phase = 1},
    .sub = 16,
    .block_bytes = sizeof(block_iq3_k),
    .pack = pack_iq3_k,
};

const iq_scaled_format iq3_ks_scaled = {
    .make_book = make_book,
    .rule = {.k_lowest = -16, .k_highest = 15, .step = 1},
    .sub = 32,
    .block_bytes = sizeof(block_iq3_ks),
    .row_meta_bytes = IQ3_KS_ROW_META,
    .pack = pack_iq3_ks,
};
