/* Encoders of the types with blocks of 32 weights. */
#include "format/codebooks.h"
#include "format/iq4_nl.h"
#include "format/q4_0.h"
#include "format/q4_1.h"
#include "format/q5_0.h"
#include "format/q5_1.h"
#include "format/q6_0.h"
#include "format/q8_0.h"
#include "quantize/encoders.h"
#include "quantize/pack.h"

static void make_4bit_book(iq_book *book) { iq_book_make_linear(book, -8, 7); }
static void make_5bit_book(iq_book *book) { iq_book_make_linear(book, -16, 15); }
static void make_6bit_book(iq_book *book) { iq_book_make_linear(book, -32, 31); }
static void make_8bit_book(iq_book *book) { iq_book_make_linear(book, -127, 127); }
static void make_4bit_range(iq_book *book) { iq_book_make_linear(book, 0, 15); }
static void make_5bit_range(iq_book *book) { iq_book_make_linear(book, 0, 31); }
static void make_iq4_nl_book(iq_book *book) { iq_book_make_int8(book, IQ_BOOK_16, iq4_values, 16, 0.0f); }

static void pack_fifth_bits(const uint8_t code[32], uint8_t qh[4]) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (uint32_t)(code[i] >> 4 & 1) << i;
    memcpy(qh, &bits, sizeof bits);
}

/* IQ4_NL has the same layout. */
static void pack_q4_0(const iq_block32 *s, uint8_t *block) {
    block_q4_0 *b = (block_q4_0 *)block;
    iq_store_u16(b->d, s->d);
    iq_pack_nibbles(s->code, 32, 16, b->qs);
}

static void pack_q4_1(const iq_block32 *s, uint8_t *block) {
    block_q4_1 *b = (block_q4_1 *)block;
    iq_store_u16(b->d, s->d);
    iq_store_u16(b->m, s->m);
    iq_pack_nibbles(s->code, 32, 16, b->qs);
}

static void pack_q5_0(const iq_block32 *s, uint8_t *block) {
    block_q5_0 *b = (block_q5_0 *)block;
    iq_store_u16(b->d, s->d);
    pack_fifth_bits(s->code, b->qh);
    iq_pack_nibbles(s->code, 32, 16, b->qs);
}

static void pack_q5_1(const iq_block32 *s, uint8_t *block) {
    block_q5_1 *b = (block_q5_1 *)block;
    iq_store_u16(b->d, s->d);
    iq_store_u16(b->m, s->m);
    pack_fifth_bits(s->code, b->qh);
    iq_pack_nibbles(s->code, 32, 16, b->qs);
}

static void pack_q6_0(const iq_block32 *s, uint8_t *block) {
    block_q6_0 *b = (block_q6_0 *)block;
    const uint8_t *c = s->code;
    iq_store_u16(b->d, s->d);
    for (int j = 0; j < 8; j++) {
        b->qh[j] = (uint8_t)(c[j] >> 4 | c[j + 16] >> 4 << 2 | c[j + 8] >> 4 << 4 | c[j + 24] >> 4 << 6);
    }
    iq_pack_nibbles(s->code, 32, 16, b->qs);
}

static void pack_q8_0(const iq_block32 *s, uint8_t *block) {
    block_q8_0 *b = (block_q8_0 *)block;
    iq_store_u16(b->d, s->d);
    for (int j = 0; j < 32; j++) b->qs[j] = (int8_t)(s->code[j] - 127);
}

const iq_block32_format q4_0_block32 = {make_4bit_book, false, sizeof(block_q4_0), pack_q4_0};
const iq_block32_format q4_1_block32 = {make_4bit_range, true, sizeof(block_q4_1), pack_q4_1};
const iq_block32_format q5_0_block32 = {make_5bit_book, false, sizeof(block_q5_0), pack_q5_0};
const iq_block32_format q5_1_block32 = {make_5bit_range, true, sizeof(block_q5_1), pack_q5_1};
const iq_block32_format q6_0_block32 = {make_6bit_book, false, sizeof(block_q6_0), pack_q6_0};
const iq_block32_format q8_0_block32 = {make_8bit_book, false, sizeof(block_q8_0), pack_q8_0};
const iq_block32_format iq4_nl_block32 = {make_iq4_nl_book, false, sizeof(block_iq4_nl), pack_q4_0};
