#include "quantize/blocks32.h"
#include "quantize/gather.h"

#define BLOCK 32
#define COLS_AT_ONCE (BLOCK * IQ_LANES)

typedef struct {
    iq_book book;
    iq_lane_set set;
} blocks32_scratch;

size_t iq_blocks32_scratch_bytes(void) { return sizeof(blocks32_scratch); }

static void pack_lane(const iq_block32_format *format, const iq_scale_group *g, size_t lane, uint8_t *block) {
    iq_block32 b = {.d = iq_f32_to_f16(g->set->block_scale[lane] * g->unit),
                    .m = iq_f32_to_f16(g->set->block_offset[lane] * g->unit)};
    for (size_t j = 0; j < BLOCK; j++) b.code[j] = g->set->code[j][lane];
    format->pack(&b, block);
}

/* Up to sixteen blocks. */
static void encode_some(const iq_block32_format *format, const float *x, const float *importance, size_t n_cols,
                        const iq_search *search, iq_scale_group *g, uint8_t *blocks) {
    const float most = 65504.0f * (format->has_offset ? 1.0f : iq_book_near_end(g->book));
    const iq_frame frame = iq_frame_of(x, importance, n_cols, most);
    g->unit = frame.unit;
    iq_gather(x, importance, n_cols / BLOCK, BLOCK, &frame, g->set);
    if (format->has_offset)
        search->solve_ranges(g);
    else
        search->solve_scales(g);
    for (size_t i = 0; i < n_cols / BLOCK; i++) pack_lane(format, g, i, blocks + i * format->block_bytes);
}

void iq_encode_blocks32(const iq_block32_format *format, const iq_encode_job *job, const float *x,
                        const float *importance, size_t n_cols, uint8_t *row) {
    blocks32_scratch *memory = job->scratch;
    iq_scale_group g = {.book = &memory->book, .effort = job->effort, .sub = BLOCK, .n_set = 1, .set = &memory->set};
    format->make_book(&memory->book);
    for (size_t at = 0; at < n_cols; at += COLS_AT_ONCE) {
        const size_t n = iq_min_size(COLS_AT_ONCE, n_cols - at);
        encode_some(format, x + at, importance ? importance + at : NULL, n, job->search, &g,
                    row + at / BLOCK * format->block_bytes);
    }
}
