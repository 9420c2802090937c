/* Brings weights and importance into lane sets: sixteen sub-blocks side by side, scaled to a comfortable range. */
#ifndef IQ_QUANTIZE_GATHER_H
#define IQ_QUANTIZE_GATHER_H

#include "quantize/search.h"

/* What weights and importance are brought to before the search. */
typedef struct {
    float limit;           /* weights beyond it cannot be stored and are clamped */
    float unit;            /* weights are divided by it */
    float importance_unit; /* importance is divided by it */
} iq_frame;

/* The power of two that brings the largest of |x| into [1, 2), as far as fp32 allows; 1 for zeros. */
float iq_unit_of(const float *x, size_t n);
iq_frame iq_frame_of(const float *x, const float *importance, size_t n, float limit);

/* Fills `set` with n_sub (<= 16) sub-blocks of `sub` weights from x and the importance, in the frame. Lanes beyond
 * n_sub become zeros without weight. A sub-block whose importance is all zero is not free to be garbage: it gets a
 * small uniform weight. importance may be NULL: all ones. */
void iq_gather(const float *x, const float *importance, size_t n_sub, size_t sub, const iq_frame *frame,
               iq_lane_set *set);

#endif
