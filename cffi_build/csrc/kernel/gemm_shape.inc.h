/* Many tokens: tiles of 16 rows are unpacked to int8 once and multiplied with all tokens.
 *
 * A tile holds one superblock of 16 rows. The codes carry their offset (and TILE_BIAS), four columns of each row side
 * by side, so that one register holds 16 rows x 4 columns; scales and minima stand as vectors over the 16 rows. A panel
 * (gemm_panel.inc.h) holds the same superblock of some tokens. In both everything stands in lane order; the two slots
 * of a 32-block are then 1 or 4 lanes apart. The sums of a slot are integers, each multiplied by its scale: nothing is
 * lost against the other shape.
 *
 * Where TILE_FOLDS is defined, a format with small products of scale and code may have them as codes (unpacker.fold):
 * integer sums then run over both slots of a 32-block, and are multiplied by a superblock's scale at its end. */

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
    union {
        float min[IQ_SLOTS][TILE_ROWS]; /* of formats with minima */
        struct {                        /* of folded ones */
            float d[TILE_ROWS];
            uint16_t odd[IQ_SLOTS]; /* a bit per row */
        };
    };
} tile;

/* What the multiplication needs to know of a format. */
typedef struct {
    bool wide; /* sums run over both slots of a 32-block: they share scale and minimum, or ... */
    bool folded;
    bool has_min;
    int apart; /* lanes between the two slots of a 32-block: 1 or 4 */
} tile_kind;

#include "kernel/gemm_panel.inc.h"

typedef struct {
    tile tiles[GEMM_TILES][GEMM_SUPERBLOCKS];
    panel panels[GEMM_SUPERBLOCKS];
    alignas(64) lanes64 stash[4][TILE_ROWS];
    alignas(64) f32x16 sw[TILE_ROWS], min[TILE_ROWS];
    float d[TILE_ROWS];
    uint16_t odd[TILE_ROWS]; /* a bit per lane */
} gemm_scratch;

_Static_assert(sizeof(gemm_scratch) <= IQ_SCRATCH_BYTES, "the engine allocates IQ_SCRATCH_BYTES per thread");

/* ---- unpacking -------------------------------------------------------------------------------------------------- */

IQ_INLINE void tile_write_codes(tile *out, gemm_scratch *scratch) {
    for (int chunk = 0; chunk < 4; chunk++) { /* its slots have lanes chunk, 4 + chunk, 8 + chunk, 12 + chunk */
        tile_store(out->codes[chunk], sizeof out->codes[0] * 4, scratch->stash[chunk]);
    }
}

static IQ_NOINLINE void tile_write(tile *out, gemm_scratch *scratch, bool has_min) {
    tile_write_codes(out, scratch);
    tile_store_f32(out->sw[0], scratch->sw);
    if (has_min) tile_store_f32(out->min[0], scratch->min);
}

IQ_INLINE lanes64 tile_codes(const unpacker f, const uint8_t *block, f32x16 offset, int chunk) {
    const lanes64 codes = f.codes64(block, chunk);
    if (!f.has_min) return v_add(codes, v_spread(offset, chunk));
    return TILE_BIAS ? v_add(codes, v_set1(TILE_BIAS)) : codes;
}

#if defined(TILE_FOLDS)
static IQ_NOINLINE void tile_write_folded(tile *out, gemm_scratch *scratch) {
    tile_write_codes(out, scratch);
    memcpy(out->d, scratch->d, sizeof out->d);
    tile_store_bits(out->odd, scratch->odd);
}

IQ_INLINE void unpack_folded(const unpacker f, const uint8_t *block, size_t r, gemm_scratch *scratch) {
    const lanes64 table = f.fold(block, &scratch->d[r], &scratch->odd[r]);
    for (int chunk = 0; chunk < 4; chunk++) scratch->stash[chunk][r] = f.folded64(block, table, chunk);
}
#endif

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
#if defined(TILE_FOLDS)
        if (f.fold) {
            unpack_folded(f, block, r, scratch);
            continue;
        }
#endif
        f32x16 offset;
        f.scales(block, f.row_scale(row), &scratch->sw[r], &offset);
        if (f.has_min) scratch->min[r] = offset;
        if (TILE_BIAS) offset = f32x16_add(offset, f32x16_set1((float)TILE_BIAS));
        scratch->stash[0][r] = tile_codes(f, block, offset, 0);
        scratch->stash[1][r] = tile_codes(f, block, offset, 1);
        scratch->stash[2][r] = tile_codes(f, block, offset, 2);
        scratch->stash[3][r] = tile_codes(f, block, offset, 3);
    }
#if defined(TILE_FOLDS)
    if (f.fold) {
        tile_write_folded(out, scratch);
        return;
    }
#endif
    tile_write(out, scratch, f.has_min);
}

/* ---- multiplying ------------------------------------------------------------------------------------------------ */

IQ_INLINE int first_lane(tile_kind kind, int pair) { return kind.apart == 1 ? 2 * pair : pair + (pair & 4); }

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
IQ_INLINE void tile_wide_pair(const tile *w, const panel *x, size_t token, int a, int b, int n_tokens, f32x16 *acc) {
    const float *d = &x->d[token][a];
    const int32_t *bias = &x->pair_bias[token][a];
    i32x16 sums[TILE_TOKENS];
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_init(bias + IQ_SLOTS * t);
    tile_slot(w->codes[a], x->q[a][token], n_tokens, sums);
    tile_slot(w->codes[b], x->q[b][token], n_tokens, sums);
    const f32x16 sw = f32x16_load(w->sw[a]);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) {
        acc[t] = f32x16_fma(i32x16_f32(sums[t]), f32x16_mul(sw, f32x16_set1(d[IQ_SLOTS * t])), acc[t]);
    }
}

/* The same with a scale for each slot */
IQ_INLINE void tile_pair(const tile *w, const panel *x, size_t token, int a, int b, int n_tokens, f32x16 *acc) {
    const float *d = &x->d[token][a];
    const int32_t *bias_a = &x->bias[token][a], *bias_b = &x->bias[token][b];
    i32x16 sums[TILE_TOKENS];
    f32x16 first[TILE_TOKENS];
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_init(bias_a + IQ_SLOTS * t);
    tile_slot(w->codes[a], x->q[a][token], n_tokens, sums);
    const f32x16 sw_a = f32x16_load(w->sw[a]);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) first[t] = f32x16_mul(i32x16_f32(sums[t]), sw_a);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_init(bias_b + IQ_SLOTS * t);
    tile_slot(w->codes[b], x->q[b][token], n_tokens, sums);
    const f32x16 sw_b = f32x16_load(w->sw[b]);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) {
        const f32x16 both = f32x16_fma(i32x16_f32(sums[t]), sw_b, first[t]);
        acc[t] = f32x16_fma(both, f32x16_set1(d[IQ_SLOTS * t]), acc[t]);
    }
}

#if defined(TILE_FOLDS)
IQ_INLINE void add_odd(uint16_t odd, const float *s, int n_tokens, f32x16 *part) {
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) {
        part[t] = f32x16_add_where(part[t], odd, f32x16_set1(s[IQ_SLOTS * t]));
    }
}

/* One superblock, whose weights are d * (2 * code + odd): codes (their offset taken back) are integers of a byte, odd
 * is 0 or 1 for a slot. What does not wait for the integer sums stands among them. */
IQ_INLINE void tile_folded(const tile *w, const panel *x, size_t token, tile_kind kind, int n_tokens, f32x16 *acc) {
    f32x16 part[TILE_TOKENS];
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) part[t] = f32x16_zero();
    for (int pair = 0; pair < IQ_SLOTS / 2; pair++) {
        const int a = first_lane(kind, pair), b = a + kind.apart;
        const float *d = &x->d[token][a];
        const int32_t *bias = &x->pair_bias[token][a];
        i32x16 sums[TILE_TOKENS];
        TILE_UNROLL for (int t = 0; t < n_tokens; t++) sums[t] = tile_init(bias + IQ_SLOTS * t);
        add_odd(w->odd[a], &x->s[token][a], n_tokens, part);
        tile_slot(w->codes[a], x->q[a][token], n_tokens, sums);
        add_odd(w->odd[b], &x->s[token][b], n_tokens, part);
        tile_slot(w->codes[b], x->q[b][token], n_tokens, sums);
        TILE_UNROLL for (int t = 0; t < n_tokens; t++) {
            const f32x16 twice = i32x16_f32(i32x16_add(sums[t], sums[t]));
            part[t] = f32x16_fma(twice, f32x16_set1(d[IQ_SLOTS * t]), part[t]);
        }
    }
    const f32x16 d = f32x16_load(w->d);
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) acc[t] = f32x16_fma(part[t], d, acc[t]);
}
#endif

IQ_INLINE void tile_min(const tile *w, const panel *x, size_t token, tile_kind kind, int n_tokens, f32x16 *acc) {
    for (int i = 0; i < (kind.wide ? IQ_SLOTS / 2 : IQ_SLOTS); i++) {
        const int lane = kind.wide ? first_lane(kind, i) : i;
        const f32x16 min = f32x16_load(w->min[lane]);
        const float *s = kind.wide ? &x->pair_s[token][lane] : &x->s[token][lane];
        TILE_UNROLL for (int t = 0; t < n_tokens; t++) acc[t] = f32x16_fma(min, f32x16_set1(s[IQ_SLOTS * t]), acc[t]);
    }
}

IQ_INLINE void tile_multiply(const tile *w, const panel *x, size_t token, size_t n_superblocks, tile_kind kind,
                             int n_tokens, f32x16 *acc) {
    TILE_UNROLL for (int t = 0; t < n_tokens; t++) acc[t] = f32x16_zero();
    for (; n_superblocks > 0; n_superblocks--, w++, x++) {
#if defined(TILE_FOLDS)
        if (kind.folded) {
            tile_folded(w, x, token, kind, n_tokens, acc);
            continue;
        }
#endif
        for (int pair = 0; pair < IQ_SLOTS / 2; pair++) {
            const int a = first_lane(kind, pair);
            if (kind.wide)
                tile_wide_pair(w, x, token, a, a + kind.apart, n_tokens, acc);
            else
                tile_pair(w, x, token, a, a + kind.apart, n_tokens, acc);
        }
        if (kind.has_min) tile_min(w, x, token, kind, n_tokens, acc);
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

/* The tokens from `token` of the panels on. */
typedef void (*tile_fn)(const tile *w, const panel *x, size_t token, size_t n_superblocks, tile_kind kind,
                        tile_output out);

#define TILE_INSTANCE(name, is_wide, is_folded, n)                                                                     \
    static IQ_NOINLINE void tile_##name##_##n(const tile *w, const panel *x, size_t token, size_t n_superblocks,       \
                                              tile_kind kind, tile_output out) {                                       \
        f32x16 acc[n];                                                                                                 \
        kind.wide = is_wide, kind.folded = is_folded;                                                                  \
        tile_multiply(w, x, token, n_superblocks, kind, n, acc);                                                       \
        tile_finish(&out, n, acc);                                                                                     \
    }
#if defined(TILE_FOLDS)
#define TILE_INSTANCES(n)                                                                                              \
    TILE_INSTANCE(narrow, false, false, n) TILE_INSTANCE(wide, true, false, n) TILE_INSTANCE(folded, true, true, n)
#define TILE_CHOICE(kind, n) ((kind).folded ? tile_folded_##n : (kind).wide ? tile_wide_##n : tile_narrow_##n)
#else
#define TILE_INSTANCES(n) TILE_INSTANCE(narrow, false, false, n) TILE_INSTANCE(wide, true, false, n)
#define TILE_CHOICE(kind, n) ((kind).wide ? tile_wide_##n : tile_narrow_##n)
#endif

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

IQ_INLINE tile_fn tile_function(size_t n_tokens, tile_kind kind) {
    switch (n_tokens) {
#if TILE_TOKENS >= 8
    case 8:
        return TILE_CHOICE(kind, 8);
#endif
#if TILE_TOKENS >= 4
    case 4:
        return TILE_CHOICE(kind, 4);
#endif
#if TILE_TOKENS >= 2
    case 2:
        return TILE_CHOICE(kind, 2);
#endif
    default:
        return TILE_CHOICE(kind, 1);
    }
}

/* All tokens against the unpacked tiles: rows first_row ..., `depth` superblocks from superblock `first`. */
static IQ_NOINLINE void gemm_tokens(const iq_matmul_task *task, tile_kind kind, size_t first_row, size_t first,
                                    size_t depth, gemm_scratch *scratch) {
    const size_t end = iq_min_size(first_row + GEMM_TILES * TILE_ROWS, task->n_rows);
    const size_t n_tiles = (end - first_row + TILE_ROWS - 1) / TILE_ROWS;
    const panel *x = scratch->panels;
    for (size_t token = 0, n; token < task->n_tokens; token += n) {
        n = tile_tokens(task->n_tokens - token);
        const tile_fn multiply = tile_function(n, kind);
        if (task->panels) {
            x = panels_at(task, token, first);
        } else {
            pack_tokens(task, kind, token, n, first, depth, scratch->panels);
        }
        for (size_t row = first_row; row < end; row += TILE_ROWS) {
            float *y = task->y + token * task->y_stride + row;
            const size_t n_rows = iq_min_size(end - row, TILE_ROWS), at = (row - first_row) / TILE_ROWS;
            if (!task->panels) fetch_blocks(task, token + n, first, depth, at);
            for (size_t part = at; task->panels && token + n < task->n_tokens && part < IQ_SLOTS; part += n_tiles) {
                fetch_panels(panels_at(task, token + n, first), kind, depth, part);
            }
            multiply(scratch->tiles[at], x, task->panels ? token % TILE_TOKENS : 0, depth, kind,
                     (tile_output){y, task->y_stride, n_rows, task->add || first > 0});
        }
    }
}

IQ_INLINE tile_kind kind_of(const unpacker f) {
#if defined(TILE_FOLDS)
    const bool folded = f.fold != NULL;
#else
    const bool folded = false;
#endif
    return (tile_kind){f.wide || folded, folded, f.has_min, SLOTS_APART(f.order)};
}

IQ_INLINE void unpack_into(const unpacker f, const iq_matmul_task *task, size_t row, size_t superblock,
                           gemm_scratch *scratch, size_t at, size_t k) {
    unpack_tile(f, task, row, superblock, scratch, &scratch->tiles[at][k]);
}

#include "kernel/gemm_loop.inc.h"
