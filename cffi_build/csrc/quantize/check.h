/* What the encoders ask of their arguments. */
#ifndef IQ_QUANTIZE_CHECK_H
#define IQ_QUANTIZE_CHECK_H

#include "quantize/encode.h"

/* Index of the first NaN or Inf, or n. */
size_t iq_first_not_finite(const float *x, size_t n);

iq_status iq_check_arguments(int32_t id, const float *src, size_t n_rows, size_t n_cols, iq_effort effort,
                             const void *dst, iq_error *error);

/* IQ_ERR_FORMAT names the first weight that is NaN or infinite. */
iq_status iq_check_weights(const float *src, size_t n_rows, size_t n_cols, iq_error *error);

#endif
