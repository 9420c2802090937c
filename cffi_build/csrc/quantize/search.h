/* The search for scales and codes: the contract between the row encoders and search_<isa>.c.
 *
 * A weight is  scale * (value[code] + shift), with the scale shared by a sub-block. Sixteen sub-blocks are searched
 * side by side, one per SIMD lane (a "lane set"), so a sum over a sub-block runs down a lane, in the same order
 * everywhere: every instruction set finds the same bytes.
 *
 * For one assignment of codes with v = value + shift, the weighted error is a parabola in the scale s:
 *
 *     sum w (x - s v)^2  =  residual + curve (s - best)^2,   curve = sum w v^2,   best = sum w x v / curve
 *
 * A candidate is such a parabola. The error that a sub-block can reach at ANY scale is close to the lowest of its
 * candidates there, which makes it cheap to try many superblock (or row) scales before codes are assigned again. */
#ifndef IQ_QUANTIZE_SEARCH_H
#define IQ_QUANTIZE_SEARCH_H

#include "quantize/book.h"
#include "quantize/encode.h"

typedef struct iq_feedback iq_feedback;

#define IQ_LANES 16
#define IQ_SUB_MOST 32  /* weights per sub-block, at most */
#define IQ_VARIANTS 4   /* sign of the scale x codebook */
#define IQ_CANDIDATES 8 /* kept per variant, at most */

typedef struct {
    alignas(64) float best[IQ_LANES];
    alignas(64) float curve[IQ_LANES];
    alignas(64) float residual[IQ_LANES];
} iq_candidate;

/* The choice for each lane: scale = d * (step * k + phase). */
typedef struct {
    alignas(64) float k[IQ_LANES];
    alignas(64) float shift[IQ_LANES]; /* 0, or the book's */
} iq_choice;

typedef struct {
    alignas(64) float x[IQ_SUB_MOST][IQ_LANES]; /* x[j][lane]: weight j of the lane's sub-block */
    alignas(64) float w[IQ_SUB_MOST][IQ_LANES];
    alignas(64) float extreme[IQ_LANES]; /* the x that is farthest from zero */
    iq_candidate candidate[IQ_VARIANTS][IQ_CANDIDATES];
    iq_choice trial, chosen;
    alignas(64) float block_scale[IQ_LANES]; /* results of solve_own_*: fp16 numbers, divided by the unit */
    alignas(64) float block_offset[IQ_LANES];
    uint8_t code[IQ_SUB_MOST][IQ_LANES]; /* result */
} iq_lane_set;

/* Which scales a format can write: d * (step * k + phase) for k in [k_lowest, k_highest]. */
typedef struct {
    int k_lowest, k_highest, step, phase;
    bool d_is_f32; /* else fp16 */
} iq_scale_rule;

/* Sub-blocks that share one d: a superblock of the K types, a row of the KS types. */
typedef struct {
    const iq_book *book;
    iq_scale_rule rule;
    iq_effort effort;
    size_t sub; /* weights per sub-block: 16 or 32 */
    float unit; /* x was divided by this power of two; d is rounded to the format after multiplying with it */
    size_t n_set;
    iq_lane_set *set;
    float d; /* result, in the file's unit */
} iq_scale_group;

struct iq_search {
    void (*solve_shared)(iq_scale_group *group); /* one d: fills d, chosen and code */
    void (*solve_scales)(iq_scale_group *group); /* a scale per lane: fills block_scale, block_offset (0) and code */
    void (*solve_ranges)(iq_scale_group *group); /* a scale and an offset per lane, codes from 0 */
    const iq_feedback *feedback;
};

#endif
