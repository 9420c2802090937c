/* A codebook made ready for searching: which code is nearest to a value, without a loop over the codes. */
#ifndef IQ_QUANTIZE_BOOK_H
#define IQ_QUANTIZE_BOOK_H

#include "base/platform.h"

#define IQ_BOOK_MOST 64 /* codes, and cells */

/* How the nearest code is found. */
typedef enum {
    IQ_BOOK_4,      /* three comparisons */
    IQ_BOOK_8,      /* 16 cells, at most one edge in each */
    IQ_BOOK_16,     /* 32 cells, at most one edge in each */
    IQ_BOOK_32,     /* 32 cells, at most two edges in each */
    IQ_BOOK_64,     /* 64 cells, at most two edges in each */
    IQ_BOOK_LINEAR, /* the codes are consecutive integers: round */
    IQ_BOOK_PAIRS,  /* IQ2_KL: 32 points in the plane */
    IQ_BOOK_PARITY, /* IQ4_KSS: 16 codes, the bits of four neighbours' codes add up to an even number */
    IQ_BOOK_KINDS
} iq_book_kind;

#define IQ_CELL_STEPS 128 /* edges stand at multiples of 1/128 of a cell: exact but for IQ6_K, where it costs nothing */

/* The line is cut into cells of equal width: u = value * cell_scale + cell_offset, cell = floor(u). base[cell] is the
 * number of edges (midpoints between neighbouring values) below the cell; comparing u with edge[base], edge[base + 1]
 * finds the code. cell_scale is a power of two, so that every table entry is exact.
 *
 * Where lookups in bytes are the cheap ones, the same search in integers: u * IQ_CELL_STEPS = cell * IQ_CELL_STEPS +
 * rest, and the code is base[cell] plus the number of edge[.][cell] that rest exceeds. */
typedef struct {
    alignas(64) int32_t base[IQ_BOOK_MOST];
    alignas(64) float edge[IQ_BOOK_MOST]; /* in cells; past the last one: beyond every u */
    alignas(64) float value[IQ_BOOK_MOST];
    alignas(64) int32_t code[IQ_BOOK_MOST]; /* PARITY: which of the 16 codes this is */
    struct {
        alignas(64) uint8_t base[IQ_BOOK_MOST];
        int8_t edge[2][IQ_BOOK_MOST];
        int8_t value[IQ_BOOK_MOST]; /* but of IQ_BOOK_64, whose values are no integers */
    } byte;
} iq_book_table;

#define IQ_PAIRS 32
#define IQ_PAIR_LEVELS 8

/* Codes that stand for two weights; each weight takes one of a few levels. */
typedef struct {
    float level[IQ_PAIR_LEVELS];
    uint8_t first[IQ_PAIRS], second[IQ_PAIRS]; /* indices into level */
} iq_pair_levels;

typedef struct {
    iq_book_table table[2]; /* PARITY: codes with an even and an odd number of bits; PAIRS: values of the first and of
                             * the second weight; else only table[0] */
    iq_pair_levels pairs;
    iq_book_kind kind;
    float cell_scale, cell_offset;
    float lowest, highest; /* values of the first and the last code */
    int n_code;
    float shift; /* the second codebook is the first plus this; 0: there is none */
} iq_book;

/* Size of the first or the last value: the one nearer to zero, the one farther from it. */
IQ_INLINE float iq_book_near_end(const iq_book *b) { return b->highest < -b->lowest ? b->highest : -b->lowest; }
IQ_INLINE float iq_book_far_end(const iq_book *b) { return b->highest < -b->lowest ? -b->lowest : b->highest; }

/* `values` ascend. */
void iq_book_make(iq_book *book, iq_book_kind kind, const float *values, int n, float shift);
void iq_book_make_int8(iq_book *book, iq_book_kind kind, const int8_t *values, int n, float shift);
void iq_book_make_linear(iq_book *book, int lowest, int highest);
void iq_book_make_parity(iq_book *book, const int8_t values[16], float shift);
void iq_book_make_pairs(iq_book *book, const int8_t pairs[IQ_PAIRS][2]);

#endif
