/* Few tokens on AVX2, for formats whose scales are small integers: a sub-block's scale is multiplied where the products
 * are added up, by vpmaddwd, and floats come in once per 32 columns.
 *
 * Every vector holds two sub-blocks of 16 columns, one in its lower 128 bits, one in its upper. Two such vectors are a
 * pair, two whole 32-blocks. Scales and sums of activations stand in the order of the vectors, the lower sub-blocks of
 * all, then the upper ones, so that the scales of a pair are one dword of either half. The activations are brought into
 * that order once per task. What is computed for a row and a token does not depend on what stands beside them. */

/* Which sub-blocks the vectors hold: those of the superblock's first half and of its second, or, where bytes hold the
 * nibbles of sub-blocks 2n and 2n + 1, what 32 bytes give. */
typedef enum { VECTORS_HALVES, VECTORS_NIBBLES } vector_order;

#define HALVES_SUB_BLOCKS(f) f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), \
    f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)
#define NIBBLES_SUB_BLOCKS(f) f(0), f(1), f(4), f(5), f(8), f(9), f(12), f(13), \
    f(2), f(3), f(6), f(7), f(10), f(11), f(14), f(15)

/* 16 words, f of each sub-block */
#define SUB_BLOCK_WORDS(order, f)                                                                                      \
    ((order) == VECTORS_HALVES ? _mm256_setr_epi16(HALVES_SUB_BLOCKS(f)) : _mm256_setr_epi16(NIBBLES_SUB_BLOCKS(f)))

#define SELF(n) (n)
static const uint8_t vector_sub_blocks[2][IQ_SLOTS] = {{HALVES_SUB_BLOCKS(SELF)}, {NIBBLES_SUB_BLOCKS(SELF)}};

/* How the int16 sums of two products that vpmaddubsw makes are added up. */
typedef enum {
    CODES_U6,       /* 0..63: sums of two still fit */
    CODES_UNSIGNED, /* 0..127 */
    CODES_SIGNED,   /* -127..126: times |q|, flipped where q < 0; ~code is -code - 1, gemv_x.negative takes it back */
} code_kind;

/* Two vectors; mixed: their words in turn, the lower 64 bits of either half in x, the upper in y. */
typedef struct {
    __m256i x, y;
} code_pair;

IQ_INLINE code_pair mix(code_pair p, bool mixed) {
    return mixed ? (code_pair){_mm256_unpacklo_epi16(p.x, p.y), _mm256_unpackhi_epi16(p.x, p.y)} : p;
}

typedef struct {
    __m256i scale;  /* 16 int16 */
    __m256i offset; /* 16 int16: what gemv_x.sums is multiplied with, scale * offset / shift or minimum */
    __m256 d, dmin; /* of the superblock */
} int_scales;

/* Beside the `unpacker`; a weight is d * scale * (code + offset), or d * scale * code - dmin * minimum. */
typedef struct {
    code_kind kind;
    vector_order order;
    int shift;  /* what sums of activations are multiplied with before: the second codebook's shift, or 1 */
    bool wide;  /* the two sub-blocks of a 32-block always share their scale */
    bool mixed; /* the codes are: one vector of scales then serves both vectors */
    int_scales (*scales)(const uint8_t *superblock);
    code_pair (*codes)(const uint8_t *superblock, int b); /* pair b: HALVES: 32-blocks b, b + 4; NIBBLES: 2b, 2b + 1 */
} int_unpacker;

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* A superblock of activations in that order */
typedef struct {
    __m256i q[8];    /* or |q| (CODES_SIGNED) */
    __m256i flip[8]; /* CODES_SIGNED: bytes of ones where q < 0 */
    __m256i sums;     /* int16: of each 16 q, times int_unpacker.shift */
    __m256i negative; /* CODES_SIGNED, int16: of each 16 |q| with q < 0 */
    __m256 d;         /* scales of the 32-blocks in their order ... */
    __m256 pair_d[4]; /* ... and of each pair, one in either half */
} gemv_x;

/* The sum of each 16 bytes of v[0..7], int16 */
IQ_INLINE __m256i sums16(const __m256i *dots) {
    __m256i half[2];
    for (int i = 0; i < 2; i++, dots += 4) {
        half[i] = _mm256_hadd_epi32(_mm256_hadd_epi32(dots[0], dots[1]), _mm256_hadd_epi32(dots[2], dots[3]));
    }
    return _mm256_packs_epi32(half[0], half[1]);
}

IQ_INLINE void gemv_pack_x(const iq_q8_block *b, iq_slot_order order, const int_unpacker g, gemv_x *out) {
    const code_kind kind = g.kind;
    const uint8_t *sub_block = vector_sub_blocks[g.order];
    uint8_t slot[IQ_SLOTS];
    for (int i = 0; i < IQ_SLOTS; i++) slot[i] = slot_of_sub_block[order][sub_block[i]];
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i dots[8], absolute[8];
    for (int i = 0; i < 8; i++) {
        const __m256i q = load16_pair(b->q + 16 * slot[i], b->q + 16 * slot[8 + i]);
        out->q[i] = q;
        dots[i] = dot_u7(ones, q);
        if (kind != CODES_SIGNED) continue;
        out->q[i] = _mm256_abs_epi8(q);
        out->flip[i] = _mm256_cmpgt_epi8(_mm256_setzero_si256(), q);
        absolute[i] = dot_u7(out->q[i], ones);
    }
    for (int i = 0; i < 8; i += 2) {
        const code_pair q = mix((code_pair){out->q[i], out->q[i + 1]}, g.mixed);
        const code_pair flip = mix((code_pair){out->flip[i], out->flip[i + 1]}, g.mixed);
        out->q[i] = q.x, out->q[i + 1] = q.y;
        if (kind == CODES_SIGNED) out->flip[i] = flip.x, out->flip[i + 1] = flip.y;
    }
    out->sums = sums16(dots);
    if (kind == CODES_SIGNED) out->negative = _mm256_srai_epi16(_mm256_sub_epi16(sums16(absolute), out->sums), 1);
    out->sums = _mm256_mullo_epi16(out->sums, _mm256_set1_epi16((short)g.shift));
    float d[8];
    for (int i = 0; i < 8; i++) d[i] = b->d[IQ_SLOT_LANE(slot[2 * i])];
    out->d = _mm256_loadu_ps(d);
    for (int i = 0; i < 4; i++) {
        out->pair_d[i] = _mm256_blend_ps(_mm256_broadcast_ss(&d[i]), _mm256_broadcast_ss(&d[4 + i]), 0xf0);
    }
}

/* ---- one superblock ---------------------------------------------------------------------------------------------- */

/* Dword b of either half, everywhere in it */
#define SPREAD(a, b) ((b) == 0   ? _mm256_shuffle_epi32(a, 0x00)                                                       \
                      : (b) == 1 ? _mm256_shuffle_epi32(a, 0x55)                                                       \
                      : (b) == 2 ? _mm256_shuffle_epi32(a, 0xaa)                                                       \
                                 : _mm256_shuffle_epi32(a, 0xff))
/* Word i of either half, everywhere in it */
IQ_INLINE __m256i spread_word(__m256i a, int i) {
    return _mm256_shuffle_epi8(a, _mm256_set1_epi16((short)(0x0100 + 0x0202 * i)));
}

IQ_INLINE __m256i gemv_products(code_kind kind, __m256i codes, const gemv_x *x, int i) {
    if (kind != CODES_SIGNED) return _mm256_maddubs_epi16(codes, x->q[i]);
    return _mm256_maddubs_epi16(x->q[i], _mm256_xor_si256(codes, x->flip[i]));
}

/* Dwords that add up to scale * code * q over pair b; each below 2^24 in size. */
IQ_INLINE __m256i pair_sums(const int_unpacker f, code_pair codes, const gemv_x *x, __m256i scale, int b) {
    const __m256i px = gemv_products(f.kind, codes.x, x, 2 * b), py = gemv_products(f.kind, codes.y, x, 2 * b + 1);
    const bool one = f.wide || f.mixed; /* words of s: x, y, x, y ... */
    const __m256i s = one ? SPREAD(scale, b) : spread_word(scale, 2 * b);
    if (one && f.kind == CODES_U6) return _mm256_madd_epi16(_mm256_add_epi16(px, py), s);
    const __m256i sy = one ? s : spread_word(scale, 2 * b + 1);
    return _mm256_add_epi32(_mm256_madd_epi16(px, s), _mm256_madd_epi16(py, sy));
}

/* The sums over constants */
IQ_INLINE __m256 constant_sums(const int_unpacker f, int_scales s, const gemv_x *x) {
    __m256i sums = _mm256_madd_epi16(s.offset, x->sums);
    if (f.kind == CODES_SIGNED) sums = _mm256_add_epi32(sums, _mm256_madd_epi16(s.scale, x->negative));
    return _mm256_cvtepi32_ps(sums);
}

/* One superblock of a row times n_tokens tokens */
IQ_INLINE void gemv_ints_superblock(const unpacker f, const int_unpacker g, const uint8_t *block, const gemv_x *x,
                                    size_t x_stride, int n_tokens, __m256 *sums) {
    const int_scales s = g.scales(block);
    __m256 part[GEMV_TOKENS];
    for (int t = 0; t < n_tokens; t++) part[t] = _mm256_setzero_ps();
    for (int b = 0; b < 4; b++) {
        const code_pair codes = g.codes(block, b);
        for (int t = 0; t < n_tokens; t++) {
            const gemv_x *xt = x + (size_t)t * x_stride;
            const __m256 dots = _mm256_cvtepi32_ps(pair_sums(g, codes, xt, s.scale, b));
            part[t] = _mm256_fmadd_ps(dots, xt->pair_d[b], part[t]);
        }
    }
    for (int t = 0; t < n_tokens; t++) {
        const gemv_x *xt = x + (size_t)t * x_stride;
        const __m256 constant = constant_sums(g, s, xt);
        if (f.has_min)
            sums[t] = _mm256_fnmadd_ps(s.dmin, _mm256_mul_ps(constant, xt->d), sums[t]);
        else
            part[t] = _mm256_fmadd_ps(constant, xt->d, part[t]);
        sums[t] = f.row_meta_bytes ? _mm256_add_ps(sums[t], part[t]) : _mm256_fmadd_ps(s.d, part[t], sums[t]);
    }
}

/* ---- rows and tokens --------------------------------------------------------------------------------------------- */

/* Tokens are taken together, four, two or one, as far as their activations, of which `fit` find room in the scratch
 * memory, allow; `tokens` has an instance for each number. */
#define GEMV_TOGETHER(task, fit, tokens, ...)                                                                          \
    for (size_t t = 0, n; t < (task)->n_tokens; t += n) {                                                              \
        n = iq_min_size((task)->n_tokens - t, fit);                                                                    \
        if (n >= 4) {                                                                                                  \
            tokens(__VA_ARGS__, t, 4), n = 4;                                                                          \
        } else if (n >= 2) {                                                                                           \
            tokens(__VA_ARGS__, t, 2), n = 2;                                                                          \
        } else {                                                                                                       \
            tokens(__VA_ARGS__, t, 1);                                                                                 \
        }                                                                                                              \
    }

IQ_INLINE void gemv_put(const iq_matmul_task *task, float *y, __m256 sums) {
    const float sum = f32v_reduce_add(sums);
    *y = task->add ? *y + sum : sum;
}

IQ_INLINE void gemv_ints_row(const unpacker f, const int_unpacker g, const iq_matmul_task *task, size_t row,
                             const gemv_x *x, size_t n_superblocks, int n_tokens, float *y) {
    const uint8_t *start = task->rows + row * task->row_bytes, *block = start + f.row_meta_bytes;
    __m256 sums[GEMV_TOKENS];
    for (int t = 0; t < n_tokens; t++) sums[t] = _mm256_setzero_ps();
    for (size_t i = 0; i < n_superblocks; i++, block += f.superblock_bytes) {
        for (size_t line = 0; line < f.superblock_bytes; line += 64) PREFETCH(block + PREFETCH_BYTES + line);
        gemv_ints_superblock(f, g, block, x + i, n_superblocks, n_tokens, sums);
    }
    for (int t = 0; t < n_tokens; t++) {
        if (f.row_meta_bytes) sums[t] = _mm256_mul_ps(sums[t], f.row_scale(start).v[0]);
        gemv_put(task, y + (size_t)t * task->y_stride + row, sums[t]);
    }
}

/* n_tokens from token `first` on; a constant of each instance */
IQ_INLINE void gemv_ints_tokens(const unpacker f, const int_unpacker g, const iq_matmul_task *task, size_t first,
                                int n_tokens) {
    const size_t n_superblocks = task->n_cols / IQ_SUPERBLOCK;
    gemv_x *x = task->scratch;
    for (int t = 0; t < n_tokens; t++) {
        const uint8_t *from = (const uint8_t *)task->x + (first + (size_t)t) * task->x_stride;
        for (size_t i = 0; i < n_superblocks; i++) {
            gemv_pack_x((const iq_q8_block *)from + i, f.order, g, x + (size_t)t * n_superblocks + i);
        }
    }
    float *y = task->y + first * task->y_stride;
    for (size_t row = 0; row < task->n_rows; row++) gemv_ints_row(f, g, task, row, x, n_superblocks, n_tokens, y);
}

/* Where not even one token's activations fit into the scratch memory, the other shape serves. */
IQ_INLINE void gemv_ints_shape(const unpacker f, const int_unpacker g, const iq_matmul_task *task) {
    const size_t fit = IQ_SCRATCH_BYTES / (task->n_cols / IQ_SUPERBLOCK * sizeof(gemv_x));
    if (fit == 0) {
        gemv_shape(f, task);
        return;
    }
    GEMV_TOGETHER(task, fit, gemv_ints_tokens, f, g, task)
}
