#include "quantize/book.h"

static const struct {
    float cell_scale, cell_offset;
    int n_cell;
} cells_of[IQ_BOOK_KINDS] = {
    [IQ_BOOK_4] = {1.0f, 0.0f, 0},        [IQ_BOOK_8] = {1.0f / 8, 8.0f, 16},
    [IQ_BOOK_16] = {1.0f / 8, 16.0f, 32}, [IQ_BOOK_32] = {1.0f / 8, 16.0f, 32},
    [IQ_BOOK_64] = {1.0f / 4, 32.0f, 64}, [IQ_BOOK_LINEAR] = {1.0f, 0.0f, 0},
    [IQ_BOOK_PAIRS] = {1.0f, 0.0f, 0},    [IQ_BOOK_PARITY] = {1.0f / 16, 8.0f, 16},
};

static void make_bytes(iq_book_table *table, int n, int n_cell) {
    for (int i = 0; i < IQ_BOOK_MOST; i++) table->byte.value[i] = (int8_t)table->value[i];
    for (int cell = 0; cell < n_cell; cell++) {
        const int below = table->base[cell];
        table->byte.base[cell] = (uint8_t)below;
        for (int i = 0; i < 2; i++) {
            const float inside = below + i + 1 < n ? table->edge[below + i] - (float)cell : 1.0f;
            table->byte.edge[i][cell] = (int8_t)(inside < 1.0f ? inside * IQ_CELL_STEPS - 1.0f : IQ_CELL_STEPS - 1.0f);
        }
    }
}

static void make_table(iq_book_table *table, const float *values, int n, float cell_scale, float cell_offset,
                       int n_cell) {
    for (int i = 0; i < IQ_BOOK_MOST; i++) {
        table->value[i] = values[i < n ? i : n - 1];
        table->edge[i] = 1e30f;
    }
    for (int i = 0; i + 1 < n; i++) {
        const float edge = (values[i] + values[i + 1]) * 0.5f * cell_scale + cell_offset;
        table->edge[i] = (float)(int)(edge * IQ_CELL_STEPS + 0.5f) / IQ_CELL_STEPS;
    }
    for (int cell = 0; cell < IQ_BOOK_MOST; cell++) {
        int below = 0;
        while (below + 1 < n && cell < n_cell && table->edge[below] < (float)cell) below++;
        table->base[cell] = below;
    }
    make_bytes(table, n, n_cell);
}

static void make_frame(iq_book *book, iq_book_kind kind, float lowest, float highest, int n_code, float shift) {
    book->kind = kind;
    book->n_code = n_code;
    book->cell_scale = cells_of[kind].cell_scale;
    book->cell_offset = cells_of[kind].cell_offset;
    book->lowest = lowest;
    book->highest = highest;
    book->shift = shift;
}

void iq_book_make(iq_book *book, iq_book_kind kind, const float *values, int n, float shift) {
    make_frame(book, kind, values[0], values[n - 1], n, shift);
    make_table(&book->table[0], values, n, book->cell_scale, book->cell_offset, cells_of[kind].n_cell);
}

void iq_book_make_int8(iq_book *book, iq_book_kind kind, const int8_t *values, int n, float shift) {
    float as_float[IQ_BOOK_MOST];
    for (int i = 0; i < n; i++) as_float[i] = (float)values[i];
    iq_book_make(book, kind, as_float, n, shift);
}

void iq_book_make_linear(iq_book *book, int lowest, int highest) {
    make_frame(book, IQ_BOOK_LINEAR, (float)lowest, (float)highest, highest - lowest + 1, 0.0f);
}

static bool has_odd_bits(int code) { return (0x6996 >> code & 1) != 0; } /* of four bits */

void iq_book_make_parity(iq_book *book, const int8_t values[16], float shift) {
    make_frame(book, IQ_BOOK_PARITY, (float)values[0], (float)values[15], 16, shift);
    for (int odd = 0; odd < 2; odd++) {
        iq_book_table *table = &book->table[odd];
        float half[8];
        int n = 0;
        memset(table->code, 0, sizeof table->code);
        for (int code = 0; code < 16; code++) {
            if (has_odd_bits(code) != (odd != 0)) continue;
            table->code[n] = code;
            half[n++] = (float)values[code];
        }
        make_table(table, half, n, book->cell_scale, book->cell_offset, cells_of[IQ_BOOK_PARITY].n_cell);
    }
}

static uint8_t level_of(iq_pair_levels *levels, int *n_level, float value) {
    int i = 0;
    while (i < *n_level && levels->level[i] != value) i++;
    if (i == *n_level) levels->level[(*n_level)++] = value;
    return (uint8_t)i;
}

void iq_book_make_pairs(iq_book *book, const int8_t pairs[IQ_PAIRS][2]) {
    int n_level = 0;
    make_frame(book, IQ_BOOK_PAIRS, -63.0f, 47.0f, IQ_PAIR_LEVELS, 0.0f);
    for (int i = 0; i < IQ_PAIRS; i++) {
        book->table[0].value[i] = (float)pairs[i][0];
        book->table[1].value[i] = (float)pairs[i][1];
        book->pairs.first[i] = level_of(&book->pairs, &n_level, (float)pairs[i][0]);
        book->pairs.second[i] = level_of(&book->pairs, &n_level, (float)pairs[i][1]);
    }
}
