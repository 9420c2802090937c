/* Many tokens: tiles of 16 rows are unpacked to int8 once and multiplied with all tokens.
 *
 * A tile holds one superblock of 16 rows. The codes carry their offset (and TILE_BIAS), four columns of each row side
 * by side, so that one register holds 16 rows x 4 columns; scales and minima stand as vectors over the 16 rows. A panel
 * holds the same superblock of some tokens. In both everything stands in lane order; the two slots of a 32-block are
 * then 1 or 4 lanes apart. The sums of a slot are integers, each multiplied by its scale: nothing is lost against the
 * other shape. */

#define TILE_ROWS 16
#define GEMM_SUPERBLOCKS 2 /* depth and ... */
#ifndef TILE_UNROLL
#define TILE_UNROLL /* before loops over the tokens of a tile */
#endif
#ifndef GEMM_TILES
#define GEMM_TILES 12 /* ... height of what is unpacked at a time: rests in the second-level cache */
#endif

typedef struct {
    alignas(64) uint8_t codes[IQ_SLOTS][4 * TILE_UNIT]; /* four units per slot */
    float sw[IQ_SLOTS][TILE_ROWS];
    float min[IQ_SLOTS][TILE_ROWS]; /* of formats with minima only */
} tile;

typedef struct {
    alignas(64) int8_t q[IQ_SLOTS][TILE_TOKENS][16 * TILE_X_BYTES]; /* as tile_dot reads them */
    float d[TILE_TOKENS][IQ_SLOTS];
    /* of each slot; if kind.wide, of each 32-block, in the lane of its first slot */
    float s[TILE_TOKENS][IQ_SLOTS];
    int32_t bias[TILE_TOKENS][IQ_SLOTS]; /* what the integer sum starts from */
} panel;

typedef struct {
    tile tiles[GEMM_TILES][GEMM_SUPERBLOCKS];
    panel panels[GEMM_SUPERBLOCKS];
    alignas(64) lanes64 stash[4][TILE_ROWS];
    alignas(64) f32x16 sw[TILE_ROWS], min[TILE_ROWS];
} gemm_scratch;

_Static_assert(sizeof(gemm_scratch) <= IQ_SCRATCH_BYTES, "the engine allocates IQ_SCRATCH_BYTES per thread");

/* What the multiplication needs to know of a format. */
typedef struct {
    bool wide; /* the two slots of a 32-block share scale and minimum */
    bool has_min;
    int apart; /* lanes between the two slots of a 32-block: 1 or 4 */
} tile_kind;

/* ---- unpacking -------------------------------------------------------------------------------------------------- */

static IQ_NOINLINE void tile_write(tile *out, gemm_scratch *scratch, bool has_min) {
    for (int chunk = 0; chunk < 4; chunk++) { /* its slots have lanes chunk, 4 + chunk, 8 + chunk, 12 + chunk */
        tile_store(out->codes[chunk], sizeof out->codes[0] * 4, scratch->stash[chunk]);
    }
    tile_store_f32(out->sw[0], scratch->sw);
    if (has_min) tile_store_f32(out->min[0], scratch->min);
}

IQ_INLINE lanes64 tile_codes(const unpacker f, const uint8_t *block, f32x16 offset, int chunk) {
    const lanes64 codes = f.codes64(block, chunk);
    if (!f.has_min) return v_add(codes, v_spread(offset, chunk));
    return TILE_BIAS ? v_add(codes, v_set1(TILE_BIAS)) : codes;
}

/* Superblock `index` of rows first_row ...; past the last row, that row again. */
IQ_INLINE void unpack_tile(const unpacker f, const iq_matmul_task *task, size_t first_row, size_t index,
                           gemm_scratch *scratch, tile *out) {
    for (size_t r = 0; r < TILE_ROWS; r++) {
        const uint8_t *row = task->rows + iq_min_size(first_row + r, task->n_rows - 1) * task->row_bytes;
        const uint8_t *block = row + f.row_meta_bytes + index * f.superblock_bytes;
        const uint8_t *below = block + TILE_ROWS * task->row_bytes; /* in the next tile */
        for (size_t i = 0; i < f.superblock_bytes; i += 64) PREFETCH(below + i);
        const size_t left = (size_t)(row + task->row_bytes - block);
        uint8_t padded[MAX_SMALL_SUPERBLOCK];
        if (left < f.superblock_bytes) {
            memset(padded, 0, sizeof padded);
            memcpy(padded, block, left);
            block = padded;
        }
        f32x16 offset;
        f.scales(block, f.row_scale(row), &scratch->sw[r], &offset);
        if (f.has_min) scratch->min[r] = offset;
        if (TILE_BIAS) offset = f32x16_add(offset, f32x16_set1((float)TILE_BIAS));
        scratch->stash[0][r] = tile_codes(f, block, offset, 0);
        scratch->stash[1][r] = tile_codes(f, block, offset, 1);
        scratch->stash[2][r] = tile_codes(f, block, offset, 2);
        scratch->stash[3][r] = tile_codes(f, block, offset, 3);
    }
    tile_write(out, scratch, f.has_min);
}

/* ---- multiplying ------------------------------------------------------------------------------------------------ */

IQ_INLINE int first_lane(tile_kind kind, int pair) { return kind.apart == 1 ? 2 * pair : pair + (pair & 4); }

/* Sums over 32-blocks: of two slots that are 1 or 4 lanes apart, in the lane of the first. */
#define ADD_PAIRS(in, apart, out)                                                                                      \
    for (int i = 0; i + (apart) < IQ_SLOTS; i++) (out)[i] = (in)[i] + (in)[i + (apart)]

IQ_INLINE void pack_pairs(const iq_q8_block *b, tile_kind kind, const int APART, int token, panel *out) {
    if (kind.has_min) ADD_PAIRS(b->s, APART, out->s[token]);
    if (TILE_BIAS) ADD_PAIRS(b->bias, APART, out->bias[token]);
}

IQ_INLINE void pack_token(const iq_q8_block *b, tile_kind kind, int token, panel *out) {
    for (int slot = 0; slot < IQ_SLOTS; slot++) tile_store_x(out->q[IQ_SLOT_LANE(slot)][token], b->q + 16 * slot);
    memcpy(out->d[token], b->d, sizeof b->d);
    if (!kind.wide) {
        memcpy(out->s[token], b->s, sizeof b->s);
        if (TILE_BIAS) memcpy(out->bias[token], b->bias, sizeof b->bias);
    } else if (kind.apart == 1) {
        pack_pairs(b, kind, 1, token, out);
    } else {
        pack_pairs(b, kind, 4, token, out);
    }
}

/* sums[t] += 16 columns of 16 rows times token t; x holds the slot of all tokens */
IQ_INLINE void tile_slot(const uint8_t *units, const int8_t *x, int n_tokens, i32x16 *sums) {
    tile_x q[TILE_TOKENS];
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) q[t] = tile_load_x(x + 16 * TILE_X_BYTES * t);
    const tile_w w0 = tile_load(units), w1 = tile_load(units + TILE_UNIT);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_dot(sums[t], w0, q[t], 0);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_dot(sums[t], w1, q[t], 1);
    const tile_w w2 = tile_load(units + 2 * TILE_UNIT), w3 = tile_load(units + 3 * TILE_UNIT);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_dot(sums[t], w2, q[t], 2);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_dot(sums[t], w3, q[t], 3);
}

/* One 32-block, its slots in lanes a and b, which share a scale */
IQ_INLINE void tile_wide_pair(const tile *w, const panel *x, int a, int b, int n_tokens, f32x16 *acc) {
    const float *d = &x->d[0][a];
    const int32_t *bias = &x->bias[0][a];
    i32x16 sums[TILE_TOKENS];
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_init(bias + IQ_SLOTS * t);
    tile_slot(w->codes[a], x->q[a][0], n_tokens, sums);
    tile_slot(w->codes[b], x->q[b][0], n_tokens, sums);
    const f32x16 sw = f32x16_load(w->sw[a]);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) {
        acc[t] = f32x16_fma(i32x16_f32(sums[t]), f32x16_mul(sw, f32x16_set1(d[IQ_SLOTS * t])), acc[t]);
    }
}

/* The same with a scale for each slot */
IQ_INLINE void tile_pair(const tile *w, const panel *x, int a, int b, int n_tokens, f32x16 *acc) {
    const float *d = &x->d[0][a];
    const int32_t *bias_a = &x->bias[0][a], *bias_b = &x->bias[0][b];
    i32x16 sums[TILE_TOKENS];
    f32x16 first[TILE_TOKENS];
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_init(bias_a + IQ_SLOTS * t);
    tile_slot(w->codes[a], x->q[a][0], n_tokens, sums);
    const f32x16 sw_a = f32x16_load(w->sw[a]);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) first[t] = f32x16_mul(i32x16_f32(sums[t]), sw_a);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_init(bias_b + IQ_SLOTS * t);
    tile_slot(w->codes[b], x->q[b][0], n_tokens, sums);
    const f32x16 sw_b = f32x16_load(w->sw[b]);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) {
        const f32x16 both = f32x16_fma(i32x16_f32(sums[t]), sw_b, first[t]);
        acc[t] = f32x16_fma(both, f32x16_set1(d[IQ_SLOTS * t]), acc[t]);
    }
}

IQ_INLINE void tile_min(const tile *w, const panel *x, tile_kind kind, int n_tokens, f32x16 *acc) {
    for (int i = 0; i < (kind.wide ? IQ_SLOTS / 2 : IQ_SLOTS); i++) {
        const int lane = kind.wide ? first_lane(kind, i) : i;
        const f32x16 min = f32x16_load(w->min[lane]);
        const float *s = &x->s[0][lane];
        TILE_UNROLL for (int t = 0; t < n_tokens; t++) acc[t] = f32x16_fma(min, f32x16_set1(s[IQ_SLOTS * t]), acc[t]);
    }
}

IQ_INLINE void tile_multiply(const tile *w, const panel *x, size_t n_superblocks, tile_kind kind, int n_tokens,
                             f32x16 *acc) {
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) acc[t] = f32x16_zero();
    for (; n_superblocks > 0; n_superblocks--, w++, x++) {
        for (int pair = 0; pair < IQ_SLOTS / 2; pair++) {
            const int a = first_lane(kind, pair);
            if (kind.wide)
                tile_wide_pair(w, x, a, a + kind.apart, n_tokens, acc);
            else
                tile_pair(w, x, a, a + kind.apart, n_tokens, acc);
        }
        if (kind.has_min) tile_min(w, x, kind, n_tokens, acc);
    }
}

/* Where the results of a tile go: added to y, or stored. */
typedef struct {
    float *y;
    size_t stride, n_rows;
    bool add;
} tile_output;

IQ_INLINE void tile_finish(const tile_output *out, int n_tokens, const f32x16 *acc) {
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) {
        float *y = out->y + (size_t)t * out->stride;
        if (out->n_rows == TILE_ROWS) {
            f32x16_store(y, out->add ? f32x16_add(f32x16_load(y), acc[t]) : acc[t]);
        } else {
            f32x16_store_n(y, out->add ? f32x16_add(f32x16_load_n(y, out->n_rows), acc[t]) : acc[t], out->n_rows);
        }
    }
}

typedef void (*tile_fn)(const tile *w, const panel *x, size_t n_superblocks, tile_kind kind, tile_output out);

#define TILE_INSTANCE(width, is_wide, n)                                                                               \
    static IQ_NOINLINE void tile_##width##_##n(const tile *w, const panel *x, size_t n_superblocks, tile_kind kind,    \
                                               tile_output out) {                                                      \
        f32x16 acc[n];                                                                                                 \
        kind.wide = is_wide;                                                                                           \
        tile_multiply(w, x, n_superblocks, kind, n, acc);                                                              \
        tile_finish(&out, n, acc);                                                                                     \
    }
#define TILE_INSTANCES(n) TILE_INSTANCE(narrow, false, n) TILE_INSTANCE(wide, true, n)

TILE_INSTANCES(1)
#if TILE_TOKENS >= 2
TILE_INSTANCES(2)
#endif
#if TILE_TOKENS >= 4
TILE_INSTANCES(4)
#endif
#if TILE_TOKENS >= 8
TILE_INSTANCES(8)
#endif

/* How many of `left` tokens to take at once: a power of two. */
IQ_INLINE size_t tile_tokens(size_t left) {
    size_t n = TILE_TOKENS;
    while (n > left) n /= 2;
    return n;
}

IQ_INLINE tile_fn tile_function(size_t n_tokens, bool wide) {
    switch (n_tokens) {
#if TILE_TOKENS >= 8
    case 8:
        return wide ? tile_wide_8 : tile_narrow_8;
#endif
#if TILE_TOKENS >= 4
    case 4:
        return wide ? tile_wide_4 : tile_narrow_4;
#endif
#if TILE_TOKENS >= 2
    case 2:
        return wide ? tile_wide_2 : tile_narrow_2;
#endif
    default:
        return wide ? tile_wide_1 : tile_narrow_1;
    }
}

/* Asks for a part of what pack_token will read next: superblock number `part` of the tokens from `token` on. */
IQ_INLINE void fetch_ahead(const iq_matmul_task *task, size_t token, size_t first, size_t depth, size_t part) {
    token += part / depth;
    if (part / depth >= TILE_TOKENS || token >= task->n_tokens) return;
    const uint8_t *x = (const uint8_t *)task->x + token * task->x_stride;
    const uint8_t *block = (const uint8_t *)((const iq_q8_block *)x + first + part % depth);
    for (size_t i = 0; i < sizeof(iq_q8_block); i += 64) PREFETCH(block + i);
}

/* All tokens against the unpacked tiles: rows first_row ..., `depth` superblocks from superblock `first`. */
static IQ_NOINLINE void gemm_tokens(const iq_matmul_task *task, tile_kind kind, size_t first_row, size_t first,
                                    size_t depth, gemm_scratch *scratch) {
    const size_t end = iq_min_size(first_row + GEMM_TILES * TILE_ROWS, task->n_rows);
    for (size_t token = 0, n; token < task->n_tokens; token += n) {
        n = tile_tokens(task->n_tokens - token);
        const tile_fn multiply = tile_function(n, kind.wide);
        for (size_t t = 0; t < n; t++) {
            const uint8_t *x = (const uint8_t *)task->x + (token + t) * task->x_stride;
            const iq_q8_block *blocks = (const iq_q8_block *)x + first;
            for (size_t i = 0; i < depth; i++) pack_token(&blocks[i], kind, (int)t, &scratch->panels[i]);
        }
        for (size_t row = first_row; row < end; row += TILE_ROWS) {
            float *y = task->y + token * task->y_stride + row;
            const size_t n_rows = iq_min_size(end - row, TILE_ROWS), at = (row - first_row) / TILE_ROWS;
            fetch_ahead(task, token + n, first, depth, at);
            multiply(scratch->tiles[at], scratch->panels, depth, kind,
                     (tile_output){y, task->y_stride, n_rows, task->add || first > 0});
        }
    }
}

IQ_INLINE tile_kind kind_of(const unpacker f) { return (tile_kind){f.wide, f.has_min, SLOTS_APART(f.order)}; }

IQ_INLINE void unpack_into(const unpacker f, const iq_matmul_task *task, size_t row, size_t superblock,
                           gemm_scratch *scratch, size_t at, size_t k) {
    unpack_tile(f, task, row, superblock, scratch, &scratch->tiles[at][k]);
}

#include "kernel/gemm_loop.inc.h"
