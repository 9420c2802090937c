/* Few tokens on NEON: as gemv_shape.inc.h, but in a wide format the 16 slots are 8 pairs of one scale, whose vectors
 * have 8 lanes in the order of ops_neon.h. One token is multiplied with two rows at a time, which share the loads of the
 * activations; what is computed for a row and a token does not depend on what stands beside them. There is no software
 * prefetch: the cores follow two sequential streams by themselves. */

#define GEMV_ROWS 2

/* One float per slot in v[0..3], or one per pair of slots in v[0..1]. */
typedef f32x16 slot_floats;

/* Distance of the two slots of a 32-block */
IQ_INLINE int pairs_apart(const unpacker f) {
    return f.order == IQ_ORDER_NIBBLE16 || f.order == IQ_ORDER_PAIRS ? 4 : 1;
}

/* Two chunks of a row and a token: the sums of slots to dots->v[2 * half] and [2 * half + 1], or of pairs to v[half] */
IQ_INLINE void dot_half(const unpacker f, int half, lanes64 a, lanes64 b, lanes64 xa, lanes64 xb, i32x16 *dots) {
    const bool i8 = f.range == CODES_I8;
    const chunk_sums first = chunk_add(chunk_zero(), a, xa, i8);
    if (f.wide && pairs_apart(f) == 4) {
        dots->v[half] = chunk_slots(chunk_add(first, b, xb, i8));
        return;
    }
    const int32x4_t low = chunk_slots(first), high = chunk_slots(chunk_add(chunk_zero(), b, xb, i8));
    if (f.wide) {
        dots->v[half] = vpaddq_s32(low, high);
    } else {
        dots->v[2 * half] = low, dots->v[2 * half + 1] = high;
    }
}

/* Per slot, or of pairs: their first slot's, or the sum of both. */
IQ_INLINE slot_floats x_first(const unpacker f, f32x16 slots) {
    const f32x8 pairs = pair_first(slots, pairs_apart(f));
    if (f.wide) slots.v[0] = pairs.v[0], slots.v[1] = pairs.v[1];
    return slots;
}
IQ_INLINE slot_floats x_sums(const unpacker f, f32x16 slots) {
    const f32x8 pairs = pair_sums(slots, pairs_apart(f));
    if (f.wide) slots.v[0] = pairs.v[0], slots.v[1] = pairs.v[1];
    return slots;
}

/* sum += one superblock of a row times a token: sw * code + offset, both sides of a slot */
IQ_INLINE float32x4_t add_slots(const unpacker f, slot_floats sw, slot_floats offset, i32x16 dots, slot_floats d,
                                slot_floats s, float32x4_t sum) {
    for (int k = 0; k < (f.wide ? 2 : 4); k++) {
        const float32x4_t dot = vcvtq_f32_s32(dots.v[k]);
        if (f.has_min) {
            sum = vfmaq_f32(sum, offset.v[k], s.v[k]);
            sum = vfmaq_f32(sum, sw.v[k], vmulq_f32(dot, d.v[k]));
        } else {
            sum = vfmaq_f32(sum, sw.v[k], vfmaq_f32(vmulq_f32(offset.v[k], s.v[k]), dot, d.v[k]));
        }
    }
    return sum;
}

/* One fp16 at the start of each of 4 blocks */
IQ_INLINE float32x4_t f16_of_4(const uint8_t *p, size_t stride) {
    const uint16x4_t x = {iq_load_u16(p), iq_load_u16(p + stride), iq_load_u16(p + 2 * stride),
                          iq_load_u16(p + 3 * stride)};
    return vcvt_f32_f16(vreinterpret_f16_u16(x));
}
/* Q8_0: codes are read as they stand, 32 in a block of 34 bytes. A register of products is a block; they are added up
 * across lanes, those of the even blocks, then of the odd ones, as the scales of the activations stand. */
IQ_INLINE void q8_0_superblock(const uint8_t *const *blocks, int n_rows, const iq_q8_block *x, float32x4_t *sums) {
    const size_t size = sizeof(block_q8_0);
    int32x4_t dots[GEMV_ROWS][2][4];
    const int8_t *q = x->q;
    IQ_UNROLL
    for (size_t i = 0; i < 4; i++) {
        const int8x16x4_t two = vld1q_s8_x4(q); /* blocks */
        q = opaque(q + 64);
        IQ_UNROLL
        for (int k = 0; k < 2 * n_rows; k++) {
            const size_t r = (size_t)k / 2, odd = (size_t)k % 2;
            const int8_t *codes = ((const block_q8_0 *)(const void *)(blocks[r] + (2 * i + odd) * size))->qs;
            const int32x4_t half = add_16(vdupq_n_s32(0), vld1q_s8(codes), two.val[2 * odd]);
            dots[r][odd][i] = add_16(half, vld1q_s8(codes + 16), two.val[2 * odd + 1]);
        }
    }
    IQ_UNROLL
    for (int k = 0; k < 2 * n_rows; k++) {
        const size_t r = (size_t)k / 2, odd = (size_t)k % 2;
        const int32x4_t *dot = dots[r][odd];
        const float32x4_t four = vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(dot[0], dot[1]), vpaddq_s32(dot[2], dot[3])));
        const float32x4_t d = vmulq_f32(vld1q_f32(x->d + 8 * odd), f16_of_4(blocks[r] + odd * size, 2 * size));
        sums[r] = vfmaq_f32(sums[r], four, d);
    }
}

/* One superblock of n_rows rows times n_tokens tokens, of which one is 1 */
IQ_INLINE void gemv_superblock(const unpacker f, const uint8_t *const *blocks, const f32x16 *row_scales, int n_rows,
                               const uint8_t *x, size_t x_stride, int n_tokens, float32x4_t *sums) {
    slot_floats sw, offset;
    i32x16 dots[GEMV_ROWS];
    IQ_UNROLL
    for (int t = 0; t < n_tokens; t++) {
        const iq_q8_block *b = (const iq_q8_block *)(const void *)(x + (size_t)t * x_stride);
        if (f.range == CODES_I8) {
            q8_0_superblock(blocks, n_rows, b, sums + t);
            continue;
        }
        IQ_UNROLL
        for (int half = 0; half < 2; half++) {
            const lanes64 xa = v_load(b->q + 128 * half), xb = v_load(b->q + 128 * half + 64);
            IQ_UNROLL
            for (int r = 0; r < n_rows; r++) {
                const lanes64 codes = f.codes64(blocks[r], 2 * half);
                dot_half(f, half, codes, f.codes64(blocks[r], 2 * half + 1), xa, xb, &dots[r]);
            }
        }
        const slot_floats d = x_first(f, slots_load(b->d)), s = x_sums(f, slots_load(b->s));
        IQ_UNROLL
        for (int r = 0; r < n_rows; r++) {
            f.scales(blocks[r], row_scales[r], &sw, &offset);
            sums[r + t] = add_slots(f, sw, offset, dots[r], d, s, sums[r + t]);
        }
    }
}

IQ_INLINE void gemv_rows(const unpacker f, const iq_matmul_task *task, const matmul_row *rows, int n_rows,
                         const uint8_t *x, int n_tokens, float32x4_t *sums) {
    const uint8_t *blocks[GEMV_ROWS];
    f32x16 row_scales[GEMV_ROWS];
    for (int r = 0; r < n_rows; r++) {
        row_scales[r] = f.row_scale(rows[r].start), blocks[r] = rows[r].start + f.row_meta_bytes;
    }
    for (int i = 0; i < n_rows * n_tokens; i++) sums[i] = vdupq_n_f32(0.0f);
    size_t left = task->row_bytes - f.row_meta_bytes;
    for (; left >= f.superblock_bytes; left -= f.superblock_bytes, x += sizeof(iq_q8_block)) {
        gemv_superblock(f, blocks, row_scales, n_rows, x, task->x_stride, n_tokens, sums);
        for (int r = 0; r < n_rows; r++) blocks[r] += f.superblock_bytes;
    }
    if (left > 0) { /* small blocks: the last superblock is not whole */
        uint8_t padded[GEMV_ROWS][MAX_SMALL_SUPERBLOCK] = {{0}};
        for (int r = 0; r < n_rows; r++) blocks[r] = memcpy(padded[r], blocks[r], left);
        gemv_superblock(f, blocks, row_scales, n_rows, x, task->x_stride, n_tokens, sums);
    }
}

IQ_INLINE void gemv_store(const iq_matmul_task *task, matmul_row row, size_t token, float32x4_t sums) {
    float *y = row.y + token * row.y_stride;
    const float sum = vaddvq_f32(sums);
    *y = task->add ? *y + sum : sum;
}

/* Tokens [first, first + n_tokens) of all rows; n_tokens is a constant of each instance. Rows are taken in the turn of
 * their bands, so that two at a time are one of each. */
IQ_INLINE void gemv_tokens(const unpacker f, const iq_matmul_task *task, size_t first, int n_tokens) {
    const uint8_t *x = (const uint8_t *)task->x + first * task->x_stride;
    const size_t n_rows = task->n_rows + task->n_more;
    float32x4_t sums[GEMV_TOKENS];
    size_t i = 0;
    for (; n_tokens == 1 && n_rows - i >= GEMV_ROWS; i += GEMV_ROWS) {
        matmul_row rows[GEMV_ROWS];
        for (size_t r = 0; r < GEMV_ROWS; r++) rows[r] = row_in_turn(task, i + r);
        gemv_rows(f, task, rows, GEMV_ROWS, x, 1, sums);
        for (int r = 0; r < GEMV_ROWS; r++) gemv_store(task, rows[r], first, sums[r]);
    }
    for (; i < n_rows; i++) {
        const matmul_row row = row_in_turn(task, i);
        gemv_rows(f, task, &row, 1, x, n_tokens, sums);
        for (int t = 0; t < n_tokens; t++) gemv_store(task, row, first + (size_t)t, sums[t]);
    }
}

#include "kernel/gemv_loop.inc.h"
