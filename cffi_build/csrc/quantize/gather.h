/* Brings weights and importance into lane sets: sixteen sub-blocks side by side, scaled to a comfortable range. */
#ifndef IQ_QUANTIZE_GATHER_H
#define IQ_QUANTIZE_GATHER_H

#include "quantize/search.h"

/* The power of two that brings the largest of |x| into [1, 2), as far as fp32 allows; 1 for zeros. */
float iq_unit_of(const float *x, size_t n);

/* Fills `set` with n_sub (<= 16) sub-blocks of `sub` weights from x, divided by `unit`, and the importance divided by
 * `importance_unit`. Lanes beyond n_sub become zeros without weight. A sub-block whose importance is all zero is not
 * free to be garbage: it gets a small uniform weight. importance may be NULL: all ones. */
void iq_gather(const float *x, const float *importance, size_t n_sub, size_t sub, float unit, float importance_unit,
               iq_lane_set *set);

#endif
