/* Many tokens on NEON: as gemm_shape.inc.h, in tiles of 8 rows and 4 tokens, whose sums stay in registers.
 *
 * Slots are taken in pairs of one 32-block, in the order of ops_neon.h: vectors over slots hold what belongs to the first
 * slots of the 8 pairs, then to the second. */

#define TILE_ROWS 8
#define GEMM_SUPERBLOCKS 4 /* depth and ... */
#define GEMM_TILES 12      /* ... height of what is unpacked at a time: rests in the second-level cache */
#define N_PAIRS (IQ_SLOTS / 2)

typedef struct {
    alignas(64) uint8_t codes[N_PAIRS][2][16 * TILE_ROWS];
    float sw[TILE_ROW_GROUPS][IQ_SLOTS][4]; /* of 4 rows (or 2 rows twice) each; wide formats have only the first 8 */
} tile;

typedef struct {
    alignas(64) int8_t q[N_PAIRS][2][16 * TILE_TOKENS * TILE_X_BYTES];
    float d[TILE_D_GROUPS][IQ_SLOTS][4]; /* the first 8 */
    float s[TILE_D_GROUPS][IQ_SLOTS][4]; /* of wide formats the first 8: sums of pairs */
} panel;

typedef struct {
    tile tiles[GEMM_TILES][GEMM_SUPERBLOCKS];
    float min[GEMM_TILES][GEMM_SUPERBLOCKS][TILE_ROW_GROUPS][IQ_SLOTS][4]; /* as sw; of formats with minima */
    panel panels[GEMM_SUPERBLOCKS];
} gemm_scratch;

_Static_assert(sizeof(gemm_scratch) <= IQ_SCRATCH_BYTES, "the engine allocates IQ_SCRATCH_BYTES per thread");

typedef struct {
    bool wide, has_min, i8;
    int apart; /* distance of the two slots of a pair: 1 or 4 */
} tile_kind;

IQ_INLINE f32x16 join_pairs(f32x8 first, f32x8 second) {
    return (f32x16)V4(first.v[0], first.v[1], second.v[0], second.v[1]);
}

/* ---- unpacking -------------------------------------------------------------------------------------------------- */

/* Scales, and minima or offsets (as bytes), of four rows */
IQ_INLINE void unpack_scales(const unpacker f, const uint8_t *const blocks[4], const f32x16 row_scales[4], float *sw,
                             float *min, uint8x16_t offsets[4]) {
    const size_t stride = IQ_SLOTS * 4;
    f32x16 scales[4], constants[4];
    IQ_UNROLL
    for (int r = 0; r < 4; r++) {
        f.scales(blocks[r], row_scales[r], &scales[r], &constants[r]);
        if (!f.has_min) offsets[r] = lane_bytes(constants[r]);
        if (f.wide) continue;
        scales[r] = join_pairs(pair_first(scales[r], pairs_apart(f)), pair_second(scales[r], pairs_apart(f)));
        constants[r] = join_pairs(pair_first(constants[r], pairs_apart(f)), pair_second(constants[r], pairs_apart(f)));
    }
    IQ_UNROLL
    for (int k = 0; k < 4; k++) {
        if (f.wide && k > 1) continue;
        const float32x4_t a[4] = {scales[0].v[k], scales[1].v[k], scales[2].v[k], scales[3].v[k]};
        tile_store_scales(sw + 16 * k, stride, a);
        const float32x4_t b[4] = {constants[0].v[k], constants[1].v[k], constants[2].v[k], constants[3].v[k]};
        if (f.has_min) tile_store_scales(min + 16 * k, stride, b);
    }
}

/* 64 codes of each of four rows */
IQ_INLINE void unpack_codes(const unpacker f, const uint8_t *const blocks[4], const uint8x16_t offsets[4], int chunk,
                            uint8_t (*out)[2][16 * TILE_ROWS]) {
    const int apart = pairs_apart(f);
    lanes64 codes[4];
    IQ_UNROLL
    for (int r = 0; r < 4; r++) codes[r] = v_transpose(f.codes64(blocks[r], chunk));
    IQ_UNROLL
    for (int k = 0; k < 4; k++) {
        const int slot = 4 * chunk + k, pair = apart == 1 ? slot / 2 : slot % 4 + slot / 8 * 4;
        uint8x16_t rows[4];
        IQ_UNROLL
        for (int r = 0; r < 4; r++) {
            rows[r] = codes[r].v[k];
            if (!f.has_min) rows[r] = add_lane(rows[r], offsets[r], f.wide ? pair : slot);
        }
        tile_store(out[pair][apart == 1 ? slot % 2 : slot / 4 % 2], rows);
    }
}

/* Superblock `index` of rows first_row ...; past the last row, that row again. */
IQ_INLINE void unpack_tile(const unpacker f, const iq_matmul_task *task, size_t first_row, size_t index, tile *out,
                           float *min) {
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
        const size_t group = quad * TILE_ROW_GROUPS / 2;
        unpack_scales(f, blocks, row_scales, out->sw[group][0], min + group * IQ_SLOTS * 4, offsets);
        uint8_t(*codes)[2][16 * TILE_ROWS] = (uint8_t(*)[2][16 * TILE_ROWS])(void *)(out->codes[0][0] + 64 * quad);
        IQ_UNROLL
        for (int chunk = 0; chunk < 4; chunk++) unpack_codes(f, blocks, offsets, chunk, codes);
    }
}

/* ---- multiplying ------------------------------------------------------------------------------------------------ */

IQ_INLINE void pack_vectors(float (*out)[IQ_SLOTS][4], int k, const f32x8 tokens[4]) {
    const float32x4_t t[4] = {tokens[0].v[k % 2], tokens[1].v[k % 2], tokens[2].v[k % 2], tokens[3].v[k % 2]};
    tile_store_d(out[0][4 * k], IQ_SLOTS * 4, t);
}

/* One superblock of four tokens */
IQ_INLINE void pack_tokens(const iq_q8_block *const b[4], tile_kind kind, int apart, panel *out) {
    IQ_UNROLL
    for (int i = 0; i < IQ_SLOTS; i++) {
        const int pair = i / 2, slot = apart == 1 ? i : pair + (pair & 4) + i % 2 * 4;
        int8x16_t x[4];
        for (int t = 0; t < 4; t++) x[t] = vld1q_s8(b[t]->q + 16 * slot);
        tile_store_x(out->q[pair][i % 2], x);
    }
    f32x8 d[4], s[4], second[4];
    for (int t = 0; t < 4; t++) {
        const f32x16 sums = slots_load(b[t]->s);
        d[t] = pair_first(slots_load(b[t]->d), apart);
        s[t] = kind.wide ? pair_sums(sums, apart) : pair_first(sums, apart);
        second[t] = pair_second(sums, apart);
    }
    for (int k = 0; k < 2; k++) {
        pack_vectors(out->d, k, d);
        if (!kind.has_min) continue;
        pack_vectors(out->s, k, s);
        if (!kind.wide) pack_vectors(out->s, 2 + k, second);
    }
}

#define EACH_GROUP(t) IQ_UNROLL for (int t = 0; t < groups; t++)
#define EACH_SUM(t, r)                                                                                                 \
    IQ_UNROLL for (int t = 0; t < groups; t++)                                                                         \
    IQ_UNROLL for (int r = 0; r < TILE_ROW_GROUPS; r++)
#define AT(t, r) ((t) * TILE_ROW_GROUPS + (r))

/* One pair of slots of one group of rows */
IQ_INLINE void tile_pair(const tile *w, const panel *x, int pair, int r, tile_kind kind, int groups,
                         float32x4_t *sums) {
    const uint8_t *first = w->codes[pair][0] + TILE_GROUP_BYTES * r, *second = w->codes[pair][1] + TILE_GROUP_BYTES * r;
    int32x4_t dots[TILE_TOKEN_GROUPS];
    float32x4_t scaled[TILE_TOKEN_GROUPS];
    EACH_GROUP(t) dots[t] = vdupq_n_s32(0);
    tile_slot(first, x->q[pair][0], groups, kind.i8, dots);
    if (!kind.wide) {
        const float32x4_t sw = vld1q_f32(w->sw[r][pair]);
        EACH_GROUP(t) scaled[t] = vmulq_f32(vcvtq_f32_s32(dots[t]), sw), dots[t] = vdupq_n_s32(0);
    }
    tile_slot(second, x->q[pair][1], groups, kind.i8, dots);
    const float32x4_t sw = vld1q_f32(w->sw[r][kind.wide ? pair : N_PAIRS + pair]);
    EACH_GROUP(t) {
        const float32x4_t dot = vcvtq_f32_s32(dots[t]);
        const float32x4_t both = kind.wide ? vmulq_f32(dot, sw) : vfmaq_f32(scaled[t], dot, sw);
        sums[AT(t, r)] = tile_scale(sums[AT(t, r)], both, x->d[0][pair], IQ_SLOTS * 4, t);
    }
}

IQ_INLINE void tile_min(const float (*min)[IQ_SLOTS][4], const panel *x, tile_kind kind, int groups,
                        float32x4_t *sums) {
    for (int i = 0; i < (kind.wide ? N_PAIRS : IQ_SLOTS); i++) {
        EACH_SUM(t, r) {
            sums[AT(t, r)] = tile_scale(sums[AT(t, r)], vld1q_f32(min[r][i]), x->s[0][i], IQ_SLOTS * 4, t);
        }
    }
}

/* Where the results of a tile go: added to y, or stored. */
typedef struct {
    float *y;
    size_t stride, n_rows, n_tokens;
    bool add;
} tile_output;

IQ_INLINE void tile_finish(const tile_output *out, const float32x4_t *sums, int n_tokens) {
    for (int t = 0; t < n_tokens && (size_t)t < out->n_tokens; t++) {
        float *y = out->y + (size_t)t * out->stride, part[TILE_ROWS];
        float32x4_t rows[2];
        tile_token(sums, t, rows);
        if (out->n_rows == TILE_ROWS) {
            vst1q_f32(y, out->add ? vaddq_f32(vld1q_f32(y), rows[0]) : rows[0]);
            vst1q_f32(y + 4, out->add ? vaddq_f32(vld1q_f32(y + 4), rows[1]) : rows[1]);
            continue;
        }
        vst1q_f32(part, rows[0]), vst1q_f32(part + 4, rows[1]);
        for (size_t r = 0; r < out->n_rows; r++) y[r] = out->add ? y[r] + part[r] : part[r];
    }
}

IQ_INLINE void tile_multiply(const tile *w, const float (*min)[TILE_ROW_GROUPS][IQ_SLOTS][4], const panel *x,
                             size_t n_superblocks, tile_kind kind, int n_tokens, const tile_output *out) {
    const int groups = TILE_TOKEN_GROUPS * n_tokens / TILE_TOKENS;
    float32x4_t sums[8];
    EACH_SUM(t, r) sums[AT(t, r)] = vdupq_n_f32(0.0f);
    for (; n_superblocks > 0; n_superblocks--, w++, x++, min++) {
        for (int pair = 0; pair < N_PAIRS; pair += 2) {
            IQ_UNROLL
            for (int r = 0; r < TILE_ROW_GROUPS; r++) tile_pair(w, x, pair, r, kind, groups, sums);
            IQ_UNROLL
            for (int r = 0; r < TILE_ROW_GROUPS; r++) tile_pair(w, x, pair + 1, r, kind, groups, sums);
        }
        if (kind.has_min) tile_min(*min, x, kind, groups, sums);
    }
    tile_finish(out, sums, n_tokens);
}

#define TILE_INSTANCE(name, is_wide, is_i8, n)                                                                         \
    static IQ_NOINLINE void tile_##name##_##n(const tile *w, const float (*min)[TILE_ROW_GROUPS][IQ_SLOTS][4],         \
                                              const panel *x, size_t n_superblocks, tile_kind kind,                    \
                                              const tile_output *out) {                                                \
        kind.wide = is_wide, kind.i8 = is_i8;                                                                          \
        tile_multiply(w, min, x, n_superblocks, kind, n, out);                                                         \
    }
TILE_INSTANCE(narrow, false, false, 2)
TILE_INSTANCE(narrow, false, false, 4)
TILE_INSTANCE(wide, true, false, 2)
TILE_INSTANCE(wide, true, false, 4)
TILE_INSTANCE(i8, true, true, 2)
TILE_INSTANCE(i8, true, true, 4)

/* All tokens against the unpacked tiles: rows first_row ..., `depth` superblocks from superblock `first`. */
static IQ_NOINLINE void gemm_tokens(const iq_matmul_task *task, tile_kind kind, size_t first_row, size_t first,
                                    size_t depth, gemm_scratch *scratch) {
    const size_t end = iq_min_size(first_row + GEMM_TILES * TILE_ROWS, task->n_rows);
    for (size_t token = 0; token < task->n_tokens; token += TILE_TOKENS) {
        const size_t n = iq_min_size(task->n_tokens - token, TILE_TOKENS);
        const iq_q8_block *blocks[4]; /* past the last token, that token again */
        for (size_t t = 0; t < 4; t++) {
            const uint8_t *x = (const uint8_t *)task->x + (token + iq_min_size(t, n - 1)) * task->x_stride;
            blocks[t] = (const iq_q8_block *)(const void *)x + first;
        }
        for (size_t i = 0; i < depth; i++) {
            if (kind.apart == 1) pack_tokens(blocks, kind, 1, &scratch->panels[i]);
            if (kind.apart == 4) pack_tokens(blocks, kind, 4, &scratch->panels[i]);
            for (int t = 0; t < 4; t++) blocks[t]++;
        }
        for (size_t row = first_row; row < end; row += TILE_ROWS) {
            const size_t at = (row - first_row) / TILE_ROWS;
            const tile_output out = {task->y + token * task->y_stride + row, task->y_stride,
                                     iq_min_size(end - row, TILE_ROWS), n, task->add || first > 0};
            (n > 2 ? kind.i8     ? tile_i8_4
                     : kind.wide ? tile_wide_4
                                 : tile_narrow_4
             : kind.i8   ? tile_i8_2
             : kind.wide ? tile_wide_2
                         : tile_narrow_2)(scratch->tiles[at], scratch->min[at], scratch->panels, depth, kind, &out);
        }
    }
}

IQ_INLINE tile_kind kind_of(const unpacker f) {
    return (tile_kind){f.wide, f.has_min, f.range == CODES_I8, pairs_apart(f)};
}

IQ_INLINE void unpack_into(const unpacker f, const iq_matmul_task *task, size_t row, size_t superblock,
                           gemm_scratch *scratch, size_t at, size_t k) {
    unpack_tile(f, task, row, superblock, &scratch->tiles[at][k], scratch->min[at][k][0][0]);
}

#include "kernel/gemm_loop.inc.h"
