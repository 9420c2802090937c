/* Few tokens times Q8_0 on AVX2, exact for every int8: |q| <= 128 times a code that is flipped where q < 0; ~code is
 * -code - 1, which a sum of |q| takes back. A vector is a block here; its scale is a float. */

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

/* The sums of four vectors' dwords in either half, side by side */
IQ_INLINE __m256i sums_of_4(const __m256i *v) {
    const __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
    const __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
    return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}

/* 8 blocks of a row times n_tokens tokens */
IQ_INLINE void q8_0_superblock(const uint8_t *blocks, const q8_0_x *x, size_t x_stride, int n_tokens, __m256 *sums) {
    const __m256 d = gather8_f16(blocks, sizeof(block_q8_0));
    for (int t = 0; t < n_tokens; t++, x += x_stride) {
        __m256i dots[8];
        for (int i = 0; i < 8; i++) {
            const __m256i codes = load32(blocks + sizeof(block_q8_0) * (size_t)i + offsetof(block_q8_0, qs));
            dots[i] = dot_u7(x->absolute[i], _mm256_xor_si256(codes, x->flip[i]));
        }
        const __m256i low = sums_of_4(dots), high = sums_of_4(dots + 4);
        const __m256i all = _mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20),
                                             _mm256_permute2x128_si256(low, high, 0x31));
        sums[t] = _mm256_fmadd_ps(d, _mm256_fmadd_ps(_mm256_cvtepi32_ps(all), x->d, x->negative), sums[t]);
    }
}

IQ_INLINE void q8_0_row(const iq_matmul_task *task, matmul_row row, const q8_0_x *x, size_t x_stride, size_t first,
                        int n_tokens) {
    enum { SUPERBLOCK = 8 * sizeof(block_q8_0) };
    const uint8_t *blocks = row.start, *end = blocks + task->row_bytes;
    __m256 sums[GEMV_TOKENS];
    for (int t = 0; t < n_tokens; t++) sums[t] = _mm256_setzero_ps();
    for (; end - blocks >= SUPERBLOCK; blocks += SUPERBLOCK, x++) {
        q8_0_superblock(blocks, x, x_stride, n_tokens, sums);
    }
    if (blocks < end) { /* the last superblock is not whole */
        uint8_t padded[SUPERBLOCK] = {0};
        memcpy(padded, blocks, (size_t)(end - blocks));
        q8_0_superblock(padded, x, x_stride, n_tokens, sums);
    }
    for (int t = 0; t < n_tokens; t++) gemv_put(task, row, first + (size_t)t, sums[t]);
}

IQ_INLINE void q8_0_tokens(const iq_matmul_task *task, size_t first, int n_tokens) {
    const size_t n_superblocks = (task->n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK;
    q8_0_x *x = task->scratch;
    for (int t = 0; t < n_tokens && !gemv_packed(task, n_tokens); t++) {
        const uint8_t *from = (const uint8_t *)task->x + (first + (size_t)t) * task->x_stride;
        q8_0_x *to = x + (size_t)t * n_superblocks;
        for (size_t i = 0; i < n_superblocks; i++) q8_0_pack_x((const iq_q8_block *)from + i, to + i);
    }
    for (size_t i = 0; i < task->n_rows + task->n_more; i++) {
        q8_0_row(task, row_in_turn(task, i), x, n_superblocks, first, n_tokens);
    }
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
