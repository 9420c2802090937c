/* Mixture of experts: each row goes to the experts with its highest scores, and what they make of it comes back as one.
 *
 * Dealt rows are sorted by expert, so that each expert's matrices are read once and multiply all of its rows together.
 */
#include <math.h>

#include "engine/stage.h"

/* A score that can be compared: NaN is never chosen before a number. */
static float comparable(float score) { return isnan(score) ? -INFINITY : score; }

/* The best expert that comes after (score, index) `last`, in falling order; equal scores by rising index. */
static uint32_t next_best(const float *scores, uint32_t n, float last_score, int64_t last) {
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++) {
        const float score = comparable(scores[i]);
        const bool is_after = score < last_score || (score == last_score && i > last);
        if (is_after && (best == n || score > comparable(scores[best]))) best = i;
    }
    return best;
}

static double softmax_sum(const float *scores, uint32_t n, float highest) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += exp((double)scores[i] - highest);
    return sum;
}

static void route_row(iq_context *c, const iq_op *op, uint32_t row) {
    iq_routing *r = &c->routing;
    const float *scores = iq_buffer_row(c, op->src[0], row);
    float *ids = iq_buffer_row(c, op->dst[0], row), *shares = iq_buffer_row(c, op->dst[1], row);
    float last_score = INFINITY;
    int64_t last = -1;
    for (uint32_t i = 0; i < r->n_used; i++) {
        const uint32_t expert = next_best(scores, r->n_expert, last_score, last);
        r->expert[row * r->n_used + i] = expert;
        ids[i] = (float)expert;
        last = expert;
        last_score = comparable(scores[expert]);
    }
    const float highest = scores[(uint32_t)ids[0]];
    double chosen = 0;
    for (uint32_t i = 0; i < r->n_used; i++) chosen += exp((double)scores[(uint32_t)ids[i]] - highest);
    const bool norm = (op->flags & IQ_FLAG_NORM_SHARES) != 0;
    const double sum = norm ? chosen : softmax_sum(scores, r->n_expert, highest);
    for (uint32_t i = 0; i < r->n_used; i++) {
        shares[i] = (float)(op->f[0] * exp((double)scores[(uint32_t)ids[i]] - highest) / sum);
    }
}

/* Counting sort: first counts, then places. */
static void place_rows(iq_routing *r) {
    const uint32_t n_dealt = r->n_rows * r->n_used;
    memset(r->first, 0, (r->n_expert + 1) * sizeof *r->first);
    for (uint32_t i = 0; i < n_dealt; i++) r->first[r->expert[i] + 1]++;
    for (uint32_t e = 0; e < r->n_expert; e++) r->first[e + 1] += r->first[e];
    for (uint32_t i = 0; i < n_dealt; i++) {
        r->place[i] = r->first[r->expert[i]]++;
        r->source[r->place[i]] = i / r->n_used;
    }
    /* each `first` now points to its end, which is the next one's start */
    memmove(r->first + 1, r->first, r->n_expert * sizeof *r->first);
    r->first[0] = 0;
}

void iq_route(iq_context *context) {
    const iq_op *op = context->run.op;
    iq_routing *r = &context->routing;
    r->n_rows = context->run.n_rows;
    r->n_expert = context->program->buffers[op->src[0]].n_cols;
    r->n_used = context->program->buffers[op->dst[0]].n_cols;
    for (uint32_t row = 0; row < r->n_rows; row++) route_row(context, op, row);
    place_rows(r);
}

void iq_deal_row(iq_context *context, const iq_op *op, uint32_t row) {
    const float *x = iq_buffer_row(context, op->src[0], context->routing.source[row]);
    memcpy(iq_buffer_row(context, op->dst[0], row), x, context->program->buffers[op->dst[0]].n_cols * sizeof *x);
}

void iq_collect_row(iq_context *context, const iq_op *op, uint32_t row) {
    const iq_routing *r = &context->routing;
    const float *shares = iq_buffer_row(context, op->src[1], row);
    const uint32_t *place = r->place + (size_t)row * r->n_used;
    const size_t n_cols = context->program->buffers[op->dst[0]].n_cols;
    float *out = iq_buffer_row(context, op->dst[0], row);
    for (uint32_t i = 0; i < r->n_used; i++) {
        const float *y = iq_buffer_row(context, op->src[0], place[i]), share = shares[i];
        for (size_t col = 0; col < n_cols; col++) out[col] += share * y[col];
    }
}

uint32_t iq_cut_experts(iq_routing *routing, uint32_t rows_per_tile) {
    uint32_t n_tiles = 0;
    for (uint32_t e = 0; e < routing->n_expert; e++) {
        for (uint32_t first = routing->first[e]; first < routing->first[e + 1]; first += rows_per_tile) {
            const uint32_t n = (uint32_t)iq_min_size(rows_per_tile, routing->first[e + 1] - first);
            routing->tiles[n_tiles++] = (iq_expert_tile){first, n, e};
        }
    }
    return n_tiles;
}
