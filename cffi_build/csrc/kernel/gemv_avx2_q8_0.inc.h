/* Few tokens times Q8_0 on AVX2: as CODES_SIGNED in gemv_avx2_shape.inc.h, which is exact for every int8: |q| <= 128
 * times a code that is flipped where q < 0. A vector is a block here; its scale is a float. */

/* 8 blocks of activations */
typedef struct {
    __m256i absolute[8], flip[8]; /* |q|; bytes of ones where q < 0 */
    __m256 d, negative;           /* of each block: its scale, and that times the sum of |q| where q < 0 */
} q8_0_x;

IQ_INLINE void q8_0_pack_x(const iq_q8_block *b, q8_0_x *out) {
    float d[8], negative[8];
    for (int i = 0; i < 8; i++) {
        const __m256i q = load32(b->q + 32 * i), flip = _mm256_cmpgt_epi8(_mm256_setzero_si256(), q);
        out->absolute[i] = _mm256_abs_epi8(q), out->flip[i] = flip;
        const __m256i sums = _mm256_sad_epu8(_mm256_and_si256(out->absolute[i], flip), _mm256_setzero_si256());
        const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        d[i] = b->d[IQ_SLOT_LANE(2 * i)];
        negative[i] = (float)_mm_cvtsi128_si32(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
    }
    out->d = _mm256_loadu_ps(d);
    out->negative = _mm256_mul_ps(out->d, _mm256_loadu_ps(negative));
}

/* 8 blocks of a row times n_tokens tokens; two sums per token, or one would wait for the other */
IQ_INLINE void q8_0_superblock(const uint8_t *blocks, const q8_0_x *x, size_t x_stride, int n_tokens,
                               __m256 (*sums)[2]) {
    const __m256 d = gather8_f16(blocks, sizeof(block_q8_0));
    for (int t = 0; t < n_tokens; t++, x += x_stride) {
        float scales[8];
        _mm256_storeu_ps(scales, _mm256_mul_ps(d, x->d));
        sums[t][0] = _mm256_fmadd_ps(d, x->negative, sums[t][0]);
        for (int i = 0; i < 8; i++) {
            const __m256i codes = load32(blocks + sizeof(block_q8_0) * (size_t)i + offsetof(block_q8_0, qs));
            const __m256 dots = _mm256_cvtepi32_ps(dot_u7(x->absolute[i], _mm256_xor_si256(codes, x->flip[i])));
            sums[t][i % 2] = _mm256_fmadd_ps(dots, _mm256_broadcast_ss(&scales[i]), sums[t][i % 2]);
        }
    }
}

IQ_INLINE void q8_0_row(const iq_matmul_task *task, size_t row, const q8_0_x *x, size_t x_stride, int n_tokens,
                        float *y) {
    enum { SUPERBLOCK = 8 * sizeof(block_q8_0) };
    const uint8_t *blocks = task->rows + row * task->row_bytes, *end = blocks + task->row_bytes;
    __m256 sums[GEMV_TOKENS][2];
    for (int t = 0; t < n_tokens; t++) sums[t][0] = sums[t][1] = _mm256_setzero_ps();
    for (; end - blocks >= SUPERBLOCK; blocks += SUPERBLOCK, x++) {
        for (size_t line = 0; line < SUPERBLOCK; line += 64) PREFETCH(blocks + PREFETCH_BYTES + line);
        q8_0_superblock(blocks, x, x_stride, n_tokens, sums);
    }
    if (blocks < end) { /* the last superblock is not whole */
        uint8_t padded[SUPERBLOCK] = {0};
        memcpy(padded, blocks, (size_t)(end - blocks));
        q8_0_superblock(padded, x, x_stride, n_tokens, sums);
    }
    for (int t = 0; t < n_tokens; t++) {
        gemv_put(task, y + (size_t)t * task->y_stride + row, _mm256_add_ps(sums[t][0], sums[t][1]));
    }
}

IQ_INLINE void q8_0_tokens(const iq_matmul_task *task, size_t first, int n_tokens) {
    const size_t n_superblocks = (task->n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK;
    q8_0_x *x = task->scratch;
    for (int t = 0; t < n_tokens && !gemv_packed(task, n_tokens); t++) {
        const uint8_t *from = (const uint8_t *)task->x + (first + (size_t)t) * task->x_stride;
        q8_0_x *to = x + (size_t)t * n_superblocks;
        for (size_t i = 0; i < n_superblocks; i++) q8_0_pack_x((const iq_q8_block *)from + i, to + i);
    }
    float *y = task->y + first * task->y_stride;
    for (size_t row = 0; row < task->n_rows; row++) q8_0_row(task, row, x, n_superblocks, n_tokens, y);
}

IQ_INLINE void gemv_q8_0(const iq_matmul_task *task) {
    const size_t n_superblocks = (task->n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK;
    const size_t fit = IQ_SCRATCH_BYTES / (n_superblocks * sizeof(q8_0_x));
    if (fit == 0) {
        gemv_shape(unpacker_q8_0, task);
        return;
    }
    GEMV_TOGETHER(task, fit, q8_0_tokens, task)
}
