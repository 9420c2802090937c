/* Few tokens: every row is read once, unpacked in registers and multiplied with all of them. */

#ifndef PREFETCH_BYTES
#define PREFETCH_BYTES 2048
#endif

/* Of a superblock that is read now. Where a weight is a byte there is little to compute: the hardware's own prefetching
 * keeps up, and asking costs a tenth of the memory's speed. */
IQ_INLINE void prefetch_ahead(const uint8_t *block, size_t superblock_bytes) {
    if (superblock_bytes > IQ_SUPERBLOCK) return;
    for (size_t line = 0; line < superblock_bytes; line += 64) PREFETCH(block + PREFETCH_BYTES + line);
}

IQ_INLINE dot64 v_dot(code_range range, lanes64 codes, const int8_t *q) {
    return range == CODES_U7   ? v_dot_u7(codes, v_load(q))
           : range == CODES_S8 ? v_dot_s8(codes, v_load(q))
                               : v_dot_i8(codes, v_load(q));
}

/* sw * code + offset: both sides of a slot */
IQ_INLINE f32x16 add_slots(const unpacker f, f32x16 sw, f32x16 offset, f32x16 dots, const iq_q8_block *b, f32x16 sum) {
    const f32x16 s = f32x16_load(b->s), d = f32x16_load(b->d);
    if (f.has_min) return f32x16_fma(sw, f32x16_mul(dots, d), f32x16_fma(offset, s, sum));
    return f32x16_fma(sw, f32x16_fma(dots, d, f32x16_mul(offset, s)), sum);
}

#ifndef ROW_SUMS
#define ROW_SUMS 1 /* rows that row_sums adds up at once: a power of two, at most 16 */
IQ_INLINE void row_sums(const f32x16 *rows, float *out) { *out = f32x16_reduce_add(*rows); }
#endif

/* The sums of n_rows rows, stored or added to y. */
IQ_INLINE void store_sums(float *y, f32x16 *rows, size_t n_rows, bool add) {
    float sums[ROW_SUMS];
    for (size_t i = n_rows; i < ROW_SUMS; i++) rows[i] = f32x16_zero();
    row_sums(rows, sums);
    for (size_t i = 0; i < n_rows; i++) y[i] = add ? y[i] + sums[i] : sums[i];
}

/* The sums of a superblock's slots, in lane order. Where two slots share a scale it does not matter which of their
 * lanes a product lands in: chunks that hold one slot of each pair are added up by the dot product itself. */
IQ_INLINE i32x16 slot_dots(const unpacker f, const lanes64 *codes, const int8_t *q) {
    const dot64 first = v_dot(f.range, codes[0], q), third = v_dot(f.range, codes[2], q + 128);
#ifdef DOTS_ADD_UP
    if (f.wide && SLOTS_APART(f.order) == 1) {
        return v_pair_sums(v_dot_more(first, codes[1], v_load(q + 64)), v_dot_more(third, codes[3], v_load(q + 192)));
    }
#endif
    return v_slot_sums(first, v_dot(f.range, codes[1], q + 64), third, v_dot(f.range, codes[3], q + 192));
}

IQ_INLINE void gemv_superblock(const unpacker f, const uint8_t *block, const uint8_t *x, size_t x_stride, int n_tokens,
                               f32x16 *sums) {
    f32x16 sw, offset;
    f.scales(block, f32x16_set1(1.0f), &sw, &offset); /* the row's own scale comes last */
    const lanes64 codes[4] = {f.codes64(block, 0), f.codes64(block, 1), f.codes64(block, 2), f.codes64(block, 3)};
    for (int t = 0; t < n_tokens; t++) {
        const iq_q8_block *b = (const iq_q8_block *)(x + (size_t)t * x_stride);
        sums[t] = add_slots(f, sw, offset, i32x16_f32(slot_dots(f, codes, b->q)), b, sums[t]);
    }
}

IQ_INLINE void gemv_row(const unpacker f, const iq_matmul_task *task, const uint8_t *start, const uint8_t *x,
                        int n_tokens, f32x16 *sums) {
    const uint8_t *block = start + f.row_meta_bytes, *end = start + task->row_bytes;
    for (int t = 0; t < n_tokens; t++) sums[t] = f32x16_zero();
    for (; (size_t)(end - block) >= f.superblock_bytes; block += f.superblock_bytes, x += sizeof(iq_q8_block)) {
        prefetch_ahead(block, f.superblock_bytes);
        gemv_superblock(f, block, x, task->x_stride, n_tokens, sums);
    }
    if (block < end) { /* small blocks: the last superblock is not whole */
        uint8_t padded[MAX_SMALL_SUPERBLOCK] = {0};
        memcpy(padded, block, (size_t)(end - block));
        gemv_superblock(f, padded, x, task->x_stride, n_tokens, sums);
    }
    if (f.row_meta_bytes == 0) return;
    for (int t = 0; t < n_tokens; t++) sums[t] = f32x16_mul(sums[t], f.row_scale(start));
}

/* Tokens [first, first + n_tokens) of all rows; n_tokens is a constant of each instance. Rows are added up in groups:
 * one row's sum alone is a chain of dependent steps at the end of every row. Two bands take turns, row by row. */
IQ_INLINE void gemv_tokens(const unpacker f, const iq_matmul_task *task, size_t first, int n_tokens) {
    const uint8_t *x = (const uint8_t *)task->x + first * task->x_stride;
    for (size_t row = 0; row < task->n_rows; row += ROW_SUMS) {
        const size_t more = task->n_more > row ? task->n_more - row : 0;
        const size_t n_rows[2] = {iq_min_size(task->n_rows - row, ROW_SUMS), iq_min_size(more, ROW_SUMS)};
        f32x16 sums[2][GEMV_TOKENS][ROW_SUMS];
        for (size_t i = 0; i < n_rows[0] + n_rows[1]; i++) {
            const band_row at = in_turn(n_rows[1], i);
            f32x16 acc[GEMV_TOKENS];
            gemv_row(f, task, row_of_band(task, at.band, row + at.row).start, x, n_tokens, acc);
            for (int t = 0; t < n_tokens; t++) sums[at.band][t][at.row] = acc[t];
        }
        for (size_t band = 0; band < 2 && n_rows[band] > 0; band++) {
            const matmul_row to = row_of_band(task, band, row);
            for (int t = 0; t < n_tokens; t++) {
                store_sums(to.y + (first + (size_t)t) * to.y_stride, sums[band][t], n_rows[band], task->add);
            }
        }
    }
}

#include "kernel/gemv_loop.inc.h"
