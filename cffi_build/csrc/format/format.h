/* One row per storage type: its size, its portable decoder (the specification) and its encoder. No SIMD here. */
#ifndef IQ_FORMAT_FORMAT_H
#define IQ_FORMAT_FORMAT_H

#include "base/status.h"

#define IQ_SUPERBLOCK 256 /* weights per superblock of the K and IQ families */

/* ggml type ids (GGUF tensor types) of the registry. */
/* clang-format off */
enum {
    IQ_TYPE_F32 = 0, IQ_TYPE_F16 = 1, IQ_TYPE_Q4_0 = 2, IQ_TYPE_Q4_1 = 3, IQ_TYPE_Q5_0 = 6, IQ_TYPE_Q5_1 = 7,
    IQ_TYPE_Q8_0 = 8, IQ_TYPE_Q2_K = 10, IQ_TYPE_Q3_K = 11, IQ_TYPE_Q4_K = 12, IQ_TYPE_Q5_K = 13, IQ_TYPE_Q6_K = 14,
    IQ_TYPE_IQ4_NL = 20, IQ_TYPE_IQ4_XS = 23, IQ_TYPE_BF16 = 30, IQ_TYPE_Q6_0 = 133, IQ_TYPE_IQ2_K = 137,
    IQ_TYPE_IQ3_K = 138, IQ_TYPE_IQ4_K = 139, IQ_TYPE_IQ5_K = 140, IQ_TYPE_IQ6_K = 141, IQ_TYPE_IQ4_KS = 144,
    IQ_TYPE_IQ2_KS = 145, IQ_TYPE_IQ4_KSS = 146, IQ_TYPE_IQ5_KS = 152, IQ_TYPE_IQ3_KS = 156, IQ_TYPE_IQ2_KL = 157,
};
/* clang-format on */

/* Decodes one row of n_cols weights; n_cols is a multiple of block_weights. Any bytes are safe input. */
typedef void (*iq_decode_fn)(const uint8_t *row, size_t n_cols, float *out);

typedef struct {
    iq_format_info info;
    iq_decode_fn decode;
} iq_format;

/* The registry row of a type id, or NULL. */
const iq_format *iq_format_row(int32_t id);

#endif
