/* iq_quantize_rows: checks, scratch memory, the loop over rows. */
#include <stdlib.h>

#include "base/fp16.h"
#include "quantize/encode.h"

#define ALIGNMENT 64

/* Index of the first NaN or Inf, or n. */
static size_t first_not_finite(const float *x, size_t n) {
    const size_t step = 256; /* a run without branches first: that is the usual case */
    for (size_t at = 0; at < n; at += step) {
        const size_t end = iq_min_size(at + step, n);
        uint32_t largest = 0;
        for (size_t i = at; i < end; i++) {
            const uint32_t size = iq_f32_to_bits(x[i]) & 0x7fffffffu;
            largest = size > largest ? size : largest;
        }
        if (largest < 0x7f800000u) continue;
        for (size_t i = at; i < end; i++) {
            if ((iq_f32_to_bits(x[i]) & 0x7f800000u) == 0x7f800000u) return i;
        }
    }
    return n;
}

static iq_status check_arguments(int32_t id, const float *src, size_t n_rows, size_t n_cols, iq_effort effort,
                                 const void *dst, iq_error *error) {
    const iq_format_info *info = iq_format_find(id);
    if (!info || !iq_encoder_find(id)) {
        return iq_fail(error, IQ_ERR_UNSUPPORTED, "ggml type %d is not one that iqrun encodes", (int)id);
    }
    const uint64_t row_bytes = iq_row_bytes(id, n_cols), most = PTRDIFF_MAX;
    if (row_bytes == 0) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "a row of %zu columns cannot be %s: it needs whole blocks of %u", n_cols,
                       info->name, info->block_weights);
    }
    if (n_rows && (row_bytes > most / n_rows || n_cols > most / sizeof(float) / n_rows)) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "%zu rows of %zu columns do not fit into memory", n_rows, n_cols);
    }
    if ((int)effort < IQ_EFFORT_FAST || (int)effort > IQ_EFFORT_BEST) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "effort %d is none of fast (0), normal (1), best (2)", (int)effort);
    }
    if (n_rows && (!src || !dst)) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "iq_quantize_rows needs a source and a destination");
    }
    return IQ_OK;
}

static iq_status check_weights(const float *src, size_t n_rows, size_t n_cols, iq_error *error) {
    const size_t bad = first_not_finite(src, n_rows * n_cols);
    if (bad == n_rows * n_cols) return IQ_OK;
    return iq_fail(error, IQ_ERR_FORMAT,
                   "the weight in row %zu, column %zu is %s: only finite weights can be quantized", bad / n_cols,
                   bad % n_cols, src[bad] != src[bad] ? "NaN" : "infinite");
}

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
    iq_status status = check_arguments(id, src, n_rows, n_cols, effort, dst, error);
    if (status != IQ_OK) return status;
    if ((status = check_importance(importance, n_cols, &informs, error)) != IQ_OK) return status;
    if (n_rows == 0) return IQ_OK;
    if ((status = check_weights(src, n_rows, n_cols, error)) != IQ_OK) return status;
    return encode_rows(iq_encoder_find(id), src, n_rows, n_cols, (size_t)iq_row_bytes(id, n_cols),
                       informs ? importance : NULL, effort, dst, error);
}
