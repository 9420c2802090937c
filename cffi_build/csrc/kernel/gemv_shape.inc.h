/* Few tokens: every row is read once, unpacked in registers and multiplied with all of them. */

#ifndef PREFETCH_BYTES
#define PREFETCH_BYTES 2048
#endif

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

IQ_INLINE void gemv_superblock(const unpacker f, const uint8_t *block, f32x16 row_scale, const uint8_t *x,
                               size_t x_stride, int n_tokens, f32x16 *sums) {
    f32x16 sw, offset;
    f.scales(block, row_scale, &sw, &offset);
    const lanes64 c0 = f.codes64(block, 0), c1 = f.codes64(block, 1);
    const lanes64 c2 = f.codes64(block, 2), c3 = f.codes64(block, 3);
    for (int t = 0; t < n_tokens; t++) {
        const iq_q8_block *b = (const iq_q8_block *)(x + (size_t)t * x_stride);
        const i32x16 dots = v_slot_sums(v_dot(f.range, c0, b->q), v_dot(f.range, c1, b->q + 64),
                                        v_dot(f.range, c2, b->q + 128), v_dot(f.range, c3, b->q + 192));
        sums[t] = add_slots(f, sw, offset, i32x16_f32(dots), b, sums[t]);
    }
}

IQ_INLINE void gemv_row(const unpacker f, const iq_matmul_task *task, size_t row, const uint8_t *x, int n_tokens,
                        f32x16 *sums) {
    const uint8_t *start = task->rows + row * task->row_bytes;
    const uint8_t *block = start + f.row_meta_bytes, *end = start + task->row_bytes;
    const f32x16 row_scale = f.row_scale(start);
    for (int t = 0; t < n_tokens; t++) sums[t] = f32x16_zero();
    for (; (size_t)(end - block) >= f.superblock_bytes; block += f.superblock_bytes, x += sizeof(iq_q8_block)) {
        for (size_t line = 0; line < f.superblock_bytes; line += 64) PREFETCH(block + PREFETCH_BYTES + line);
        gemv_superblock(f, block, row_scale, x, task->x_stride, n_tokens, sums);
    }
    if (block < end) { /* small blocks: the last superblock is not whole */
        uint8_t padded[MAX_SMALL_SUPERBLOCK] = {0};
        memcpy(padded, block, (size_t)(end - block));
        gemv_superblock(f, padded, row_scale, x, task->x_stride, n_tokens, sums);
    }
}

/* Tokens [first, first + n_tokens) of all rows; n_tokens is a constant of each instance. */
IQ_INLINE void gemv_tokens(const unpacker f, const iq_matmul_task *task, size_t first, int n_tokens) {
    const uint8_t *x = (const uint8_t *)task->x + first * task->x_stride;
    for (size_t row = 0; row < task->n_rows; row++) {
        f32x16 sums[GEMV_TOKENS];
        gemv_row(f, task, row, x, n_tokens, sums);
        for (int t = 0; t < n_tokens; t++) {
            float *y = task->y + (first + (size_t)t) * task->y_stride + row;
            const float sum = f32x16_reduce_add(sums[t]);
            *y = task->add ? *y + sum : sum;
        }
    }
}

IQ_INLINE void gemv_shape(const unpacker f, const iq_matmul_task *task) {
    size_t t = 0;
    for (; task->n_tokens - t >= GEMV_TOKENS; t += GEMV_TOKENS) gemv_tokens(f, task, t, GEMV_TOKENS);
    switch (task->n_tokens - t) {
#if GEMV_TOKENS > 3
    case 3:
        gemv_tokens(f, task, t, 3);
        break;
#endif
#if GEMV_TOKENS > 2
    case 2:
        gemv_tokens(f, task, t, 2);
        break;
#endif
    case 1:
        gemv_tokens(f, task, t, 1);
        break;
    default:
        break;
    }
}
