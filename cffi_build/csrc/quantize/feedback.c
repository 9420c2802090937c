/* iq_feedback_order and iq_feedback_rows: checks, scratch memory, the loop over rows. */
#include <stdlib.h>

#include "quantize/check.h"
#include "quantize/encoders.h"
#include "quantize/feedback_rows.h"

#define ALIGNMENT 64

static iq_status find_format(int32_t id, const iq_scaled_format **format, iq_error *error) {
    *format = iq_scaled_find(id);
    if (*format) return IQ_OK;
    return iq_fail(error, IQ_ERR_UNSUPPORTED, "ggml type %d is not one that iqrun encodes with error feedback", (int)id);
}

iq_status iq_feedback_order(int32_t id, uint8_t *order, iq_error *error) {
    const iq_scaled_format *format;
    iq_book book;
    const iq_status status = find_format(id, &format, error);
    if (status != IQ_OK) return status;
    format->make_book(&book);
    iq_feedback_make_order(&book, order);
    return IQ_OK;
}

static iq_status check_numbers(const float *weights, size_t n_rows, size_t n_cols, const float *feedback,
                               const float *curvature, iq_error *error) {
    iq_status status = iq_check_weights(weights, n_rows, n_cols, error);
    if (status != IQ_OK) return status;
    const size_t bad = iq_first_not_finite(feedback, n_cols * n_cols);
    if (bad < n_cols * n_cols) {
        return iq_fail(error, IQ_ERR_FORMAT, "the feedback from column %zu to column %zu is not finite", bad / n_cols,
                       bad % n_cols);
    }
    for (size_t c = 0; c < n_cols; c++) {
        if (curvature[c] > 0.0f && curvature[c] <= 3.4028235e38f) continue;
        return iq_fail(error, IQ_ERR_FORMAT, "the curvature of column %zu must be finite and above 0", c);
    }
    return IQ_OK;
}

static iq_status encode_all(iq_feedback_job *job, const float *weights, size_t n_rows, uint8_t *rows, float *loss,
                            iq_error *error) {
    uint8_t *memory = malloc(iq_feedback_layout(job, NULL) + ALIGNMENT);
    if (!memory) return iq_fail(error, IQ_ERR_MEMORY, "out of memory for quantizing rows of %zu columns", job->n_cols);
    uint8_t *aligned = memory + (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT;
    job->memory = (feedback_memory *)(void *)aligned;
    iq_feedback_layout(job, aligned);
    iq_status status = IQ_OK;
    for (size_t at = 0; at < n_rows && status == IQ_OK; at += IQ_LANES) {
        const iq_feedback_rows_at_once set = {weights + at * job->n_cols, rows + at * job->row_bytes, loss + at,
                                              iq_min_size(IQ_LANES, n_rows - at)};
        status = iq_feedback_encode(job, &set, error);
    }
    free(memory);
    return status;
}

iq_status iq_feedback_rows(int32_t id, const float *weights, size_t n_rows, size_t n_cols, const float *feedback,
                           const float *curvature, iq_effort effort, int again, void *rows, float *loss,
                           iq_error *error) {
    const iq_scaled_format *format;
    iq_status status = find_format(id, &format, error);
    if (status != IQ_OK) return status;
    if ((status = iq_check_arguments(id, weights, n_rows, n_cols, effort, rows, error)) != IQ_OK) return status;
    if (!feedback || !curvature || !loss || n_cols > (size_t)PTRDIFF_MAX / sizeof(float) / n_cols) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "iq_feedback_rows needs the feedback, the curvature and a place for loss");
    }
    if (n_rows == 0) return IQ_OK;
    if ((status = check_numbers(weights, n_rows, n_cols, feedback, curvature, error)) != IQ_OK) return status;
    iq_feedback_job job = {.format = format,
                           .id = id,
                           .n_cols = n_cols,
                           .row_bytes = (size_t)iq_row_bytes(id, n_cols),
                           .feedback = feedback,
                           .curvature = curvature,
                           .effort = effort,
                           .again = again != 0,
                           .search = iq_search_best()};
    return encode_all(&job, weights, n_rows, rows, loss, error);
}
