/* iq_quantize_rows: checks, scratch memory, the loop over rows. */
#include <stdlib.h>

#include "quantize/check.h"

#define ALIGNMENT 64

/* Also finds whether any importance is above zero. */
static iq_status check_importance(const float *importance, size_t n_cols, bool *informs, iq_error *error) {
    *informs = false;
    for (size_t i = 0; importance && i < n_cols; i++) {
        const float w = importance[i];
        if (!(w >= 0.0f) || w > 3.4028235e38f) {
            return iq_fail(error, IQ_ERR_FORMAT,
                           "the importance of column %zu (for all rows from row 0 on) is %s: it must be finite and at "
                           "least 0",
                           i,
                           w != w     ? "NaN"
                           : w < 0.0f ? "negative"
                                      : "infinite");
        }
        *informs |= w > 0.0f;
    }
    return IQ_OK;
}

static iq_status encode_rows(const iq_encoder *encoder, const float *src, size_t n_rows, size_t n_cols,
                             size_t row_bytes, const float *importance, iq_effort effort, uint8_t *dst,
                             iq_error *error) {
    uint8_t *memory = malloc(iq_encode_scratch_bytes(encoder, n_cols) + ALIGNMENT);
    if (!memory) return iq_fail(error, IQ_ERR_MEMORY, "out of memory for quantizing rows of %zu columns", n_cols);
    const size_t misaligned = (uintptr_t)memory % ALIGNMENT;
    const iq_encode_job job = {effort, iq_search_best(), memory + ALIGNMENT - misaligned};
    for (size_t i = 0; i < n_rows; i++) {
        iq_encode_row(encoder, &job, src + i * n_cols, importance, n_cols, dst + i * row_bytes);
    }
    free(memory);
    return IQ_OK;
}

iq_status iq_quantize_rows(int32_t id, const float *src, size_t n_rows, size_t n_cols, const float *importance,
                           iq_effort effort, void *dst, iq_error *error) {
    bool informs;
    iq_status status = iq_check_arguments(id, src, n_rows, n_cols, effort, dst, error);
    if (status != IQ_OK) return status;
    if ((status = check_importance(importance, n_cols, &informs, error)) != IQ_OK) return status;
    if (n_rows == 0) return IQ_OK;
    if ((status = iq_check_weights(src, n_rows, n_cols, error)) != IQ_OK) return status;
    return encode_rows(iq_encoder_find(id), src, n_rows, n_cols, (size_t)iq_row_bytes(id, n_cols),
                       informs ? importance : NULL, effort, dst, error);
}
