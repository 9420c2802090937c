/* Encoders of IQ6_K and Q6_K: int8 scales. */
#include "format/codebooks.h"
#include "format/iq6_k.h"
#include "format/q6_k.h"
#include "quantize/encoders.h"
#include "quantize/pack.h"
#include "quantize/scaled.h"

static void make_iq6_book(iq_book *book) {
    float values[64];
    for (int q = 0; q < 64; q++) values[q] = iq6_value(q);
    iq_book_make(book, IQ_BOOK_64, values, 64, IQ6_SHIFT);
}

static void make_q6_book(iq_book *book) { iq_book_make_linear(book, -32, 31); }

static void pack_iq6_k(const iq_superblock *s, uint8_t *block) {
    block_iq6_k *b = (block_iq6_k *)block;
    iq_store_u16(b->d, s->d);
    iq_store_u16(b->extra, s->shifted);
    for (int sb = 0; sb < 16; sb++) b->scales[sb] = (int8_t)s->k[sb];
    iq_pack_nibbles(s->code, IQ_SUPERBLOCK, 32, b->qs);
    iq_pack_high_pairs(s->code, b->qh);
}

static void pack_q6_k(const iq_superblock *s, uint8_t *block) {
    block_q6_k *b = (block_q6_k *)block;
    iq_store_u16(b->d, s->d);
    for (int sb = 0; sb < 16; sb++) b->scales[sb] = (int8_t)s->k[sb];
    iq_pack_nibbles(s->code, IQ_SUPERBLOCK, 64, b->ql);
    iq_pack_high_pairs(s->code, b->qh);
}

const iq_scaled_format iq6_k_scaled = {
    .make_book = make_iq6_book,
    .rule = {.k_lowest = -128, .k_highest = 127, .step = 1},
    .sub = 16,
    .block_bytes = sizeof(block_iq6_k),
    .pack = pack_iq6_k,
};

const iq_scaled_format q6_k_scaled = {
    .make_book = make_q6_book,
    .rule = {.k_lowest = -128, .k_highest = 127, .step = 1},
    .sub = 16,
    .block_bytes = sizeof(block_q6_k),
    .pack = pack_q6_k,
};
