/* Few tokens on AVX2, for formats whose scales are small integers.
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

typedef enum {
    CODES_U6,       /* 0..63 */
    CODES_UNSIGNED, /* 0..127 */
    CODES_SIGNED,   /* -127..126, plus LANE_BIAS */
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

/* The slots in the vectors' lower halves, then those in their upper */
IQ_INLINE void vector_slots(iq_slot_order order, vector_order vectors, uint8_t slot[IQ_SLOTS]) {
    for (int i = 0; i < IQ_SLOTS; i++) slot[i] = slot_of_sub_block[order][vector_sub_blocks[vectors][i]];
}
/* The sum of each 16 bytes of v[0..7], int16 */
IQ_INLINE __m256i sums16(const __m256i *dots) {
    __m256i half[2];
    for (int i = 0; i < 2; i++, dots += 4) {
        half[i] = _mm256_hadd_epi32(_mm256_hadd_epi32(dots[0], dots[1]), _mm256_hadd_epi32(dots[2], dots[3]));
    }
    return _mm256_packs_epi32(half[0], half[1]);
}

/* The scales of the 32-blocks, of the lower halves of all pairs, then of the upper; and of each pair, one in either half */
IQ_INLINE void pack_d(const iq_q8_block *b, const uint8_t slot[IQ_SLOTS], __m256 *block_d, __m256 *pair_d) {
    float d[8];
    for (int i = 0; i < 8; i++) d[i] = b->d[IQ_SLOT_LANE(slot[2 * i])];
    *block_d = _mm256_loadu_ps(d);
    for (int i = 0; i < 4; i++) {
        pair_d[i] = _mm256_blend_ps(_mm256_broadcast_ss(&d[i]), _mm256_broadcast_ss(&d[4 + i]), 0xf0);
    }
}
/* Dword b of either half, everywhere in it */
#define SPREAD(a, b) ((b) == 0   ? _mm256_shuffle_epi32(a, 0x00)                                                       \
                      : (b) == 1 ? _mm256_shuffle_epi32(a, 0x55)                                                       \
                      : (b) == 2 ? _mm256_shuffle_epi32(a, 0xaa)                                                       \
                                 : _mm256_shuffle_epi32(a, 0xff))

/* gemv_x with gemv_pack_x, and gemv_ints_superblock: what depends on the instructions that multiply */
#if defined(IQ_AVX_VNNI)
#include "kernel/gemv_avx2_vnni.inc.h"
#else
#include "kernel/gemv_avx2_maddubs.inc.h"
#endif

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

/* The result of a row and the token of that number */
IQ_INLINE void gemv_put(const iq_matmul_task *task, matmul_row row, size_t token, __m256 sums) {
    float *y = row.y + token * row.y_stride;
    const float sum = f32v_reduce_add(sums);
    *y = task->add ? *y + sum : sum;
}

IQ_INLINE void gemv_ints_row(const unpacker f, const int_unpacker g, const iq_matmul_task *task, matmul_row row,
                             const gemv_x *x, size_t n_superblocks, size_t first, int n_tokens) {
    const uint8_t *block = row.start + f.row_meta_bytes;
    __m256 sums[GEMV_TOKENS];
    for (int t = 0; t < n_tokens; t++) sums[t] = _mm256_setzero_ps();
    for (size_t i = 0; i < n_superblocks; i++, block += f.superblock_bytes) {
        prefetch_ahead(block, f.superblock_bytes);
        gemv_ints_superblock(f, g, block, x + i, n_superblocks, n_tokens, sums);
    }
    for (int t = 0; t < n_tokens; t++) {
        if (f.row_meta_bytes) sums[t] = _mm256_mul_ps(sums[t], f.row_scale(row.start).v[0]);
        gemv_put(task, row, first + (size_t)t, sums[t]);
    }
}

/* Whether the scratch memory already holds the activations of n_tokens tokens: with one group of tokens, those of the
 * task before. */
IQ_INLINE bool gemv_packed(const iq_matmul_task *task, int n_tokens) {
    return task->packed && (size_t)n_tokens == task->n_tokens;
}

/* n_tokens from token `first` on; a constant of each instance */
IQ_INLINE void gemv_ints_tokens(const unpacker f, const int_unpacker g, const iq_matmul_task *task, size_t first,
                                int n_tokens) {
    const size_t n_superblocks = task->n_cols / IQ_SUPERBLOCK;
    gemv_x *x = task->scratch;
    for (int t = 0; t < n_tokens && !gemv_packed(task, n_tokens); t++) {
        const uint8_t *from = (const uint8_t *)task->x + (first + (size_t)t) * task->x_stride;
        for (size_t i = 0; i < n_superblocks; i++) {
            gemv_pack_x((const iq_q8_block *)from + i, f.order, g, x + (size_t)t * n_superblocks + i);
        }
    }
    for (size_t i = 0; i < task->n_rows + task->n_more; i++) {
        gemv_ints_row(f, g, task, row_in_turn(task, i), x, n_superblocks, first, n_tokens);
    }
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
