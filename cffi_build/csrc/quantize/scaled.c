#include <float.h>

#include "quantize/gather.h"
#include "quantize/pack.h"
#include "quantize/scaled.h"

#define SUB_PER_SUPERBLOCK(format) (IQ_SUPERBLOCK / (format)->sub)

/* What the scratch memory holds. */
typedef struct {
    iq_book book;
    iq_lane_set set[]; /* one (K), or as many as the row needs (KS) */
} scaled_scratch;

static size_t sets_of(const iq_scaled_format *format, size_t n_cols) {
    const size_t n_sub = format->row_meta_bytes ? n_cols / format->sub : SUB_PER_SUPERBLOCK(format);
    return (n_sub + IQ_LANES - 1) / IQ_LANES;
}

size_t iq_scaled_scratch_bytes(const iq_scaled_format *format, size_t n_cols) {
    return sizeof(scaled_scratch) + sets_of(format, n_cols) * sizeof(iq_lane_set);
}

/* The largest weight that the format can hold with either sign. */
static float largest_weight(const iq_scale_group *g) {
    const float code = (float)(g->rule.k_highest * g->rule.step + g->rule.phase);
    return g->rule.d_is_f32 ? FLT_MAX : 65504.0f * code * iq_book_near_end(g->book);
}

static void gather_group(const float *x, const float *importance, size_t n_cols, iq_scale_group *g) {
    const size_t n_sub = n_cols / g->sub;
    const iq_frame frame = iq_frame_of(x, importance, n_cols, largest_weight(g));
    g->unit = frame.unit;
    for (size_t s = 0; s < g->n_set; s++) {
        const size_t first = s * IQ_LANES, at = first * g->sub;
        iq_gather(x + at, importance ? importance + at : NULL, iq_min_size(IQ_LANES, n_sub - first), g->sub, &frame,
                  &g->set[s]);
    }
}

/* Superblock `index` of a solved group. */
static void read_superblock(const iq_scale_group *g, size_t index, iq_superblock *out) {
    const size_t n_sub = IQ_SUPERBLOCK / g->sub, first = index * n_sub;
    const iq_lane_set *set = &g->set[first / IQ_LANES];
    out->shifted = 0;
    for (size_t sb = 0; sb < n_sub; sb++) {
        const size_t lane = first % IQ_LANES + sb;
        out->k[sb] = (int16_t)set->chosen.k[lane];
        out->shifted |= (uint16_t)((set->chosen.shift[lane] != 0.0f) << sb);
        for (size_t j = 0; j < g->sub; j++) out->code[sb * g->sub + j] = set->code[j][lane];
    }
}

void iq_scaled_write_d(const iq_scaled_format *format, float d, uint8_t *row) {
    if (format->rule.d_is_f32)
        memcpy(row, &d, sizeof d);
    else
        iq_store_u16(row, iq_f32_to_f16(d));
}

static iq_scale_group make_group(const iq_scaled_format *format, const iq_encode_job *job, size_t n_cols) {
    scaled_scratch *memory = job->scratch;
    format->make_book(&memory->book);
    return (iq_scale_group){.book = &memory->book,
                            .rule = format->rule,
                            .effort = job->effort,
                            .sub = format->sub,
                            .n_set = sets_of(format, n_cols),
                            .set = memory->set};
}

float iq_scaled_solve_d(const iq_scaled_format *format, const iq_encode_job *job, const float *x,
                        const float *importance, size_t n_cols) {
    iq_scale_group g = make_group(format, job, n_cols);
    gather_group(x, importance, n_cols, &g);
    job->search->solve_shared(&g);
    return g.d;
}

/* Searches n_cols weights under one d and writes their blocks. */
static void encode_group(const iq_scaled_format *format, const float *x, const float *importance, size_t n_cols,
                         const iq_search *search, iq_scale_group *g, uint8_t *blocks) {
    gather_group(x, importance, n_cols, g);
    search->solve_shared(g);
    for (size_t i = 0; i < n_cols / IQ_SUPERBLOCK; i++) {
        iq_superblock s;
        read_superblock(g, i, &s);
        s.d = iq_f32_to_f16(g->d);
        format->pack(&s, blocks + i * format->block_bytes);
    }
}

void iq_encode_scaled(const iq_scaled_format *format, const iq_encode_job *job, const float *x, const float *importance,
                      size_t n_cols, uint8_t *row) {
    const size_t group_cols = format->row_meta_bytes ? n_cols : IQ_SUPERBLOCK;
    iq_scale_group g = make_group(format, job, n_cols);
    uint8_t *blocks = row + format->row_meta_bytes;
    for (size_t at = 0; at < n_cols; at += group_cols) {
        encode_group(format, x + at, importance ? importance + at : NULL, group_cols, job->search, &g,
                     blocks + at / IQ_SUPERBLOCK * format->block_bytes);
    }
    if (format->row_meta_bytes) iq_scaled_write_d(format, g.d, row);
}
