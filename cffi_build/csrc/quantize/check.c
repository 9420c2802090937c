#include "quantize/check.h"

#include "base/fp16.h"

size_t iq_first_not_finite(const float *x, size_t n) {
    const size_t step = 256; /* a run without branches first: that is the usual case */
    const uint32_t exponent = 0x7f800000u;
    for (size_t at = 0; at < n; at += step) {
        const size_t end = iq_min_size(at + step, n);
        uint32_t found = 0;
        for (size_t i = at; i < end; i++) found |= (iq_f32_to_bits(x[i]) & exponent) == exponent;
        for (size_t i = at; i < end && found; i++) {
            if ((iq_f32_to_bits(x[i]) & exponent) == exponent) return i;
        }
    }
    return n;
}

iq_status iq_check_arguments(int32_t id, const float *src, size_t n_rows, size_t n_cols, iq_effort effort,
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
        return iq_fail(error, IQ_ERR_ARGUMENT, "encoding needs a source and a destination");
    }
    return IQ_OK;
}

iq_status iq_check_weights(const float *src, size_t n_rows, size_t n_cols, iq_error *error) {
    const size_t bad = iq_first_not_finite(src, n_rows * n_cols);
    if (bad == n_rows * n_cols) return IQ_OK;
    return iq_fail(error, IQ_ERR_FORMAT,
                   "the weight in row %zu, column %zu is %s: only finite weights can be quantized", bad / n_cols,
                   bad % n_cols, src[bad] != src[bad] ? "NaN" : "infinite");
}
