/* Many tokens on NEON: as gemm_shape.inc.h, in tiles of 8 rows and 4 tokens, whose sums stay in registers.
 *
 * Slots are taken in pairs of one 32-block, in the order of ops_neon.h. Their products are added up from the first slot
 * through the second: where each has a scale of its own, sw0 * dot0 + sw1 * dot1 is
 * (sw0 - sw1) * dot0 + sw1 * (dot0 + dot1). All that a tile and a panel hold is read front to back. */

#define TILE_ROWS 8
#define GEMM_SUPERBLOCKS 4 /* depth and ... */
#define GEMM_TILES 12      /* ... height of what is unpacked at a time: rests in the second-level cache */
#define N_PAIRS (IQ_SLOTS / 2)

typedef float row_vectors[TILE_ROW_VECTORS][4];

/* Of wide formats, one vector per pair; else one per slot: a pair's first scale is that of the first slot, less the
 * second's. */
typedef struct {
    alignas(64) uint8_t codes[GEMM_SUPERBLOCKS][N_PAIRS][2][16 * TILE_ROWS];
    row_vectors sw[GEMM_SUPERBLOCKS * IQ_SLOTS], min[GEMM_SUPERBLOCKS * IQ_SLOTS];
} tile;

typedef struct {
    alignas(64) int8_t q[GEMM_SUPERBLOCKS][N_PAIRS][2][TILE_X_SLOT_BYTES];
    float bases[GEMM_SUPERBLOCKS][N_PAIRS][16]; /* of tile_scale */
    float d[GEMM_SUPERBLOCKS][N_PAIRS][TILE_D_VECTORS][4];
    float s[GEMM_SUPERBLOCKS * IQ_SLOTS][TILE_D_VECTORS][4]; /* for min */
} panel;

typedef struct {
    tile tiles[GEMM_TILES];
    panel panel;
} gemm_scratch;

_Static_assert(sizeof(gemm_scratch) <= IQ_SCRATCH_BYTES, "the engine allocates IQ_SCRATCH_BYTES per thread");

typedef struct {
    bool wide, has_min, i8;
    int apart; /* distance of the two slots of a pair: 1 or 4 */
} tile_kind;

/* The pair of a slot, whose two slots are 1 or 4 apart, and which of the two it is */
IQ_INLINE int pair_of(int slot, int apart) { return apart == 1 ? slot / 2 : slot % 4 + slot / 8 * 4; }
IQ_INLINE int place_of(int slot, int apart) { return apart == 1 ? slot % 2 : slot / 4 % 2; }

/* Scales of a superblock and row */
IQ_INLINE int n_scales(bool wide) { return wide ? N_PAIRS : IQ_SLOTS; }

/* ---- unpacking -------------------------------------------------------------------------------------------------- */

/* Eight floats of each of four rows to every `step`-th of the vectors of rows */
IQ_INLINE void store_rows(const f32x8 rows[4], size_t quad, int step, row_vectors *out) {
    IQ_UNROLL
    for (int k = 0; k < 2; k++) {
        float32x4_t r[4] = {rows[0].v[k], rows[1].v[k], rows[2].v[k], rows[3].v[k]};
        transpose4(r);
        for (int i = 0; i < 4; i++) tile_store_rows(out[(4 * k + i) * step][quad * TILE_ROW_VECTORS / 2], r[i]);
    }
}

/* Scales, and minima or offsets (as bytes), of four rows */
IQ_INLINE void unpack_scales(const unpacker f, const uint8_t *const blocks[4], const f32x16 row_scales[4], size_t quad,
                             row_vectors *sw, row_vectors *min, uint8x16_t offsets[4]) {
    f32x8 scales[2][4], constants[2][4];
    IQ_UNROLL
    for (int r = 0; r < 4; r++) {
        f32x16 scale, constant;
        f.scales(blocks[r], row_scales[r], &scale, &constant);
        if (!f.has_min) offsets[r] = lane_bytes(constant);
        if (f.wide) {
            scales[0][r] = (f32x8){{scale.v[0], scale.v[1]}}, constants[0][r] = (f32x8){{constant.v[0], constant.v[1]}};
            continue;
        }
        const f32x8 first = pair_first(scale, pairs_apart(f)), second = pair_second(scale, pairs_apart(f));
        scales[0][r] = (f32x8){{vsubq_f32(first.v[0], second.v[0]), vsubq_f32(first.v[1], second.v[1])}};
        scales[1][r] = second;
        constants[0][r] = pair_first(constant, pairs_apart(f)), constants[1][r] = pair_second(constant, pairs_apart(f));
    }
    const int n = f.wide ? 1 : 2;
    IQ_UNROLL
    for (int i = 0; i < n; i++) {
        store_rows(scales[i], quad, n, sw + i);
        if (f.has_min) store_rows(constants[i], quad, n, min + i);
    }
}

/* Which of the offsets belong to the slots of a chunk, as its codes stand: four bytes of each of four slots */
IQ_INLINE uint8x16_t offset_lanes(const unpacker f, int chunk) {
    const uint8x16_t slot = {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const bool halve = f.wide && pairs_apart(f) == 1;
    const int first = f.wide ? (halve ? 2 * chunk : chunk / 2 * 4) : 4 * chunk;
    return vaddq_u8(halve ? vshrq_n_u8(slot, 1) : slot, vdupq_n_u8((uint8_t)first));
}

/* 64 codes of each of four rows */
IQ_INLINE void unpack_codes(const unpacker f, const uint8_t *const blocks[4], const uint8x16_t offsets[4], int chunk,
                            uint8_t (*out)[2][16 * TILE_ROWS]) {
    const int apart = pairs_apart(f);
    lanes64 codes[4];
    IQ_UNROLL
    for (int r = 0; r < 4; r++) {
        codes[r] = f.codes64(blocks[r], chunk);
        if (!f.has_min) codes[r] = lanes_add(codes[r], vqtbl1q_u8(offsets[r], offset_lanes(f, chunk)));
        codes[r] = v_transpose(codes[r]);
    }
    IQ_UNROLL
    for (int k = 0; k < 4; k++) {
        const int slot = 4 * chunk + k, pair = pair_of(slot, apart);
        const uint8x16_t rows[4] = {codes[0].v[k], codes[1].v[k], codes[2].v[k], codes[3].v[k]};
        tile_store(out[pair][place_of(slot, apart)], rows);
    }
}

/* Superblock `index` of rows first_row ... as the k-th of the tile; past the last row, that row again. */
IQ_INLINE void unpack_tile(const unpacker f, const iq_matmul_task *task, size_t first_row, size_t index, size_t k,
                           tile *out) {
    const size_t offset = f.row_meta_bytes + index * f.superblock_bytes, left = task->row_bytes - offset;
    uint8_t padded[4][MAX_SMALL_SUPERBLOCK];
    for (size_t quad = 0; quad < TILE_ROWS / 4; quad++) {
        const uint8_t *blocks[4];
        f32x16 row_scales[4];
        uint8x16_t offsets[4];
        for (size_t r = 0; r < 4; r++) {
            const uint8_t *row = task->rows + iq_min_size(first_row + 4 * quad + r, task->n_rows - 1) * task->row_bytes;
            row_scales[r] = f.row_scale(row), blocks[r] = row + offset;
            if (left < f.superblock_bytes) {
                memset(padded[r], 0, sizeof padded[r]);
                blocks[r] = memcpy(padded[r], blocks[r], left);
            }
        }
        const size_t scale = k * (size_t)n_scales(f.wide);
        unpack_scales(f, blocks, row_scales, quad, &out->sw[scale], &out->min[scale], offsets);
        uint8_t(*codes)[2][16 * TILE_ROWS] = (uint8_t(*)[2][16 * TILE_ROWS])(void *)(out->codes[k][0][0] + 64 * quad);
        IQ_UNROLL
        for (int chunk = 0; chunk < 4; chunk++) unpack_codes(f, blocks, offsets, chunk, codes);
    }
}

/* ---- multiplying ------------------------------------------------------------------------------------------------ */

/* Sums of four tokens: of pairs, or of their first and of their second slots */
IQ_INLINE void pack_sums(f32x8 s[2][4], bool wide, float (*out)[TILE_D_VECTORS][4]) {
    const int n = wide ? 1 : 2;
    for (int k = 0; k < 2 * n; k++) {
        float32x4_t tokens[4];
        for (int t = 0; t < 4; t++) tokens[t] = s[k % n][t].v[k / n];
        transpose4(tokens);
        for (int i = 0; i < 4; i++) tile_store_tokens(out[(k / n * 4 + i) * n + k % n][0], tokens[i]);
    }
}

/* The k-th superblock of four tokens */
IQ_INLINE void pack_tokens(const iq_q8_block *const b[4], tile_kind kind, int apart, size_t k, panel *out) {
    IQ_UNROLL
    for (int chunk = 0; chunk < 4; chunk++) {
        int8x16x4_t x[4];
        for (int t = 0; t < 4; t++) x[t] = vld1q_s8_x4(b[t]->q + 64 * chunk);
        IQ_UNROLL
        for (int i = 0; i < 4; i++) {
            const int slot = 4 * chunk + i, pair = pair_of(slot, apart);
            const int8x16_t tokens[4] = {x[0].val[i], x[1].val[i], x[2].val[i], x[3].val[i]};
            tile_store_x(out->q[k][pair][place_of(slot, apart)], tokens);
        }
    }
    f32x8 d[4], s[2][4];
    for (int t = 0; t < 4; t++) {
        const f32x16 sums = slots_load(b[t]->s);
        d[t] = pair_first(slots_load(b[t]->d), apart);
        s[0][t] = kind.wide ? pair_sums(sums, apart) : pair_first(sums, apart);
        s[1][t] = pair_second(sums, apart);
    }
    for (int part = 0; part < 2; part++) {
        float32x4_t tokens[4];
        for (int t = 0; t < 4; t++) tokens[t] = tile_round(d[t].v[part]);
        transpose4(tokens);
        for (int i = 0; i < 4; i++) {
            tile_store_tokens(out->d[k][4 * part + i][0], tokens[i]);
            tile_store_bases(out->bases[k][4 * part + i], tokens[i]);
        }
    }
    if (kind.has_min) pack_sums(s, kind.wide, out->s + k * (size_t)n_scales(kind.wide));
}

/* Where reading a tile and a panel has come to */
typedef struct {
    const int8_t *w, *x;
    const float *sw, *bases, *d;
    const int32_t *starts;
} tile_reader;

/* One pair of slots */
IQ_INLINE void tile_pair(tile_reader *at, int i, tile_kind kind, int n_tokens, tile_sums *sums) {
    const float *sw = at->sw + i * (kind.wide ? 1 : 2) * TILE_ROW_VECTORS * 4;
    tile_dots dots = tile_start(&at->starts);
    tile_slot(&at->w, &at->x, n_tokens, kind.i8, &dots);
    const tile_tokens d = tile_load_tokens(at->d + i * TILE_D_VECTORS * 4);
    if (!kind.wide) tile_scale(&dots, &at->bases, 0, d, sw, n_tokens, sums), sw += TILE_ROW_VECTORS * 4;
    tile_slot(&at->w, &at->x, n_tokens, kind.i8, &dots);
    tile_scale(&dots, &at->bases, 16, d, sw, n_tokens, sums);
}

/* Where the results of a tile go: added to y, or stored. */
typedef struct {
    float *y;
    size_t stride, n_rows, n_tokens;
    bool add;
} tile_output;

IQ_INLINE void tile_put(float *y, size_t stride, const tile_sums *sums, int n_tokens, bool add) {
    IQ_UNROLL
    for (int t = 0; t < n_tokens; t++, y += stride) {
        const float32x4_t low = tile_token(sums, 0, t), high = tile_token(sums, 1, t);
        vst1q_f32(y, add ? vaddq_f32(vld1q_f32(y), low) : low);
        vst1q_f32(y + 4, add ? vaddq_f32(vld1q_f32(y + 4), high) : high);
    }
}
/* Some of the rows and tokens */
static IQ_NOINLINE void tile_put_some(const tile_output *out, const float (*whole)[TILE_ROWS]) {
    for (size_t t = 0; t < out->n_tokens; t++) {
        float *y = out->y + t * out->stride;
        for (size_t r = 0; r < out->n_rows; r++) y[r] = out->add ? y[r] + whole[t][r] : whole[t][r];
    }
}
IQ_INLINE void tile_finish(const tile_output *out, const tile_sums *sums, int n_tokens) {
    if (out->n_rows < TILE_ROWS || out->n_tokens < (size_t)n_tokens) {
        float whole[TILE_TOKENS][TILE_ROWS];
        tile_put(whole[0], TILE_ROWS, sums, n_tokens, false);
        tile_put_some(out, (const float(*)[TILE_ROWS])whole);
    } else if (out->add) {
        tile_put(out->y, out->stride, sums, n_tokens, true);
    } else {
        tile_put(out->y, out->stride, sums, n_tokens, false);
    }
}

IQ_INLINE void tile_multiply(const tile *w, const panel *x, size_t depth, tile_kind kind, int n_tokens,
                             const tile_output *out) {
    const size_t scales = (size_t)n_scales(kind.wide);
    const int together = kind.wide || !IQ_NEON_I8MM ? 4 : 2; /* as many as GCC has registers for without copies */
    tile_sums sums;
    IQ_UNROLL
    for (int i = 0; i < 8; i++) sums.v[i / 4][i % 4] = vdupq_n_f32(0.0f);
    tile_reader at = {(const int8_t *)w->codes, x->q[0][0][0], w->sw[0][0], x->bases[0][0], x->d[0][0][0], sum_starts};
    for (size_t i = 0; i < depth * N_PAIRS; i += (size_t)together) {
        IQ_UNROLL
        for (int k = 0; k < together; k++) tile_pair(&at, k, kind, n_tokens, &sums);
        at.sw += (size_t)together * scales / N_PAIRS * TILE_ROW_VECTORS * 4;
        at.d += together * TILE_D_VECTORS * 4;
    }
    const float *min = w->min[0][0], *s = x->s[0][0];
    for (size_t i = 0; kind.has_min && i < depth * scales; i += (size_t)together) {
        IQ_UNROLL
        for (int k = 0; k < together; k++) {
            tile_add(min + k * TILE_ROW_VECTORS * 4, s + k * TILE_D_VECTORS * 4, n_tokens, &sums);
        }
        min += together * TILE_ROW_VECTORS * 4, s += together * TILE_D_VECTORS * 4;
    }
    tile_finish(out, &sums, n_tokens);
}

#define TILE_INSTANCE(name, is_wide, is_i8, n)                                                                         \
    static IQ_NOINLINE void tile_##name##_##n(const tile *w, const panel *x, size_t depth, tile_kind kind,             \
                                              const tile_output *out) {                                                \
        kind.wide = is_wide, kind.i8 = is_i8;                                                                          \
        tile_multiply(w, x, depth, kind, n, out);                                                                      \
    }
TILE_INSTANCE(narrow, false, false, 2)
TILE_INSTANCE(narrow, false, false, 4)
TILE_INSTANCE(wide, true, false, 2)
TILE_INSTANCE(wide, true, false, 4)
TILE_INSTANCE(i8, true, true, 2)
TILE_INSTANCE(i8, true, true, 4)

typedef void (*tile_fn)(const tile *w, const panel *x, size_t depth, tile_kind kind, const tile_output *out);

IQ_INLINE tile_fn tile_function(tile_kind kind, size_t n_tokens) {
    if (n_tokens > 2) return kind.i8 ? tile_i8_4 : kind.wide ? tile_wide_4 : tile_narrow_4;
    return kind.i8 ? tile_i8_2 : kind.wide ? tile_wide_2 : tile_narrow_2;
}

/* All tokens against the unpacked tiles: rows first_row ..., `depth` superblocks from superblock `first`. */
static IQ_NOINLINE void gemm_tokens(const iq_matmul_task *task, tile_kind kind, size_t first_row, size_t first,
                                    size_t depth, gemm_scratch *scratch) {
    const size_t end = iq_min_size(first_row + GEMM_TILES * TILE_ROWS, task->n_rows);
    for (size_t token = 0; token < task->n_tokens; token += TILE_TOKENS) {
        const size_t n = iq_min_size(task->n_tokens - token, TILE_TOKENS);
        const tile_fn multiply = tile_function(kind, n);
        const iq_q8_block *blocks[4]; /* past the last token, that token again */
        for (size_t t = 0; t < 4; t++) {
            const uint8_t *x = (const uint8_t *)task->x + (token + iq_min_size(t, n - 1)) * task->x_stride;
            blocks[t] = (const iq_q8_block *)(const void *)x + first;
        }
        for (size_t i = 0; i < depth; i++) {
            if (kind.apart == 1) pack_tokens(blocks, kind, 1, i, &scratch->panel);
            if (kind.apart == 4) pack_tokens(blocks, kind, 4, i, &scratch->panel);
            for (int t = 0; t < 4; t++) blocks[t]++;
        }
        tile_output out = {task->y + token * task->y_stride + first_row, task->y_stride, TILE_ROWS, n,
                           task->add || first > 0};
        const tile *w = scratch->tiles;
        for (size_t row = first_row; row < end; row += TILE_ROWS, out.y += TILE_ROWS, w++) {
            out.n_rows = iq_min_size(end - row, TILE_ROWS);
            multiply(w, &scratch->panel, depth, kind, &out);
        }
    }
}

IQ_INLINE tile_kind kind_of(const unpacker f) {
    return (tile_kind){f.wide, f.has_min, f.range == CODES_I8, pairs_apart(f)};
}

IQ_INLINE void unpack_into(const unpacker f, const iq_matmul_task *task, size_t row, size_t superblock,
                           gemm_scratch *scratch, size_t at, size_t k) {
    unpack_tile(f, task, row, superblock, k, &scratch->tiles[at]);
}

#include "kernel/gemm_loop.inc.h"
