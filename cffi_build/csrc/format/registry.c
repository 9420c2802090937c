/* The table of storage types, and the functions of iqrun.h that read it. */
#include "format/decode.h"
#include "format/floats.h"
#include "format/iq2_k.h"
#include "format/iq2_kl.h"
#include "format/iq2_ks.h"
#include "format/iq3_k.h"
#include "format/iq3_ks.h"
#include "format/iq4_k.h"
#include "format/iq4_ks.h"
#include "format/iq4_kss.h"
#include "format/iq4_nl.h"
#include "format/iq4_xs.h"
#include "format/iq5_k.h"
#include "format/iq5_ks.h"
#include "format/iq6_k.h"
#include "format/q2_k.h"
#include "format/q3_k.h"
#include "format/q4_0.h"
#include "format/q4_1.h"
#include "format/q4_k.h"
#include "format/q5_0.h"
#include "format/q5_1.h"
#include "format/q5_k.h"
#include "format/q6_0.h"
#include "format/q6_k.h"
#include "format/q8_0.h"

enum { DECODE_ONLY = 0, ENCODES = 1 };

/* clang-format off */
static const iq_format formats[] = {
    /* id           file_type  name   block_weights  block_bytes     row_meta_bytes  can_encode     decode */
    {{IQ_TYPE_F32,     0, "f32",      1, sizeof(block_f32),                     0, ENCODES},     iq_decode_f32},
    {{IQ_TYPE_F16,     1, "f16",      1, sizeof(block_f16),                     0, ENCODES},     iq_decode_f16},
    {{IQ_TYPE_BF16,   32, "bf16",     1, sizeof(block_bf16),                    0, ENCODES},     iq_decode_bf16},
    {{IQ_TYPE_Q4_0,    2, "q4_0",    32, sizeof(block_q4_0),                    0, ENCODES},     iq_decode_q4_0},
    {{IQ_TYPE_Q4_1,    3, "q4_1",    32, sizeof(block_q4_1),                    0, ENCODES},     iq_decode_q4_1},
    {{IQ_TYPE_Q5_0,    8, "q5_0",    32, sizeof(block_q5_0),                    0, ENCODES},     iq_decode_q5_0},
    {{IQ_TYPE_Q5_1,    9, "q5_1",    32, sizeof(block_q5_1),                    0, ENCODES},     iq_decode_q5_1},
    {{IQ_TYPE_Q6_0,  135, "q6_0",    32, sizeof(block_q6_0),                    0, ENCODES},     iq_decode_q6_0},
    {{IQ_TYPE_Q8_0,    7, "q8_0",    32, sizeof(block_q8_0),                    0, ENCODES},     iq_decode_q8_0},
    {{IQ_TYPE_Q2_K,   10, "q2_k",   256, sizeof(block_q2_k),                    0, DECODE_ONLY}, iq_decode_q2_k},
    {{IQ_TYPE_Q3_K,   12, "q3_k",   256, sizeof(block_q3_k),                    0, DECODE_ONLY}, iq_decode_q3_k},
    {{IQ_TYPE_Q4_K,   15, "q4_k",   256, sizeof(block_q4_k),                    0, DECODE_ONLY}, iq_decode_q4_k},
    {{IQ_TYPE_Q5_K,   17, "q5_k",   256, sizeof(block_q5_k),                    0, DECODE_ONLY}, iq_decode_q5_k},
    {{IQ_TYPE_Q6_K,   18, "q6_k",   256, sizeof(block_q6_k),                    0, ENCODES},     iq_decode_q6_k},
    {{IQ_TYPE_IQ4_NL, 25, "iq4_nl",  32, sizeof(block_iq4_nl),                  0, ENCODES},     iq_decode_iq4_nl},
    {{IQ_TYPE_IQ4_XS, 30, "iq4_xs", 256, sizeof(block_iq4_xs),                  0, DECODE_ONLY}, iq_decode_iq4_xs},
    {{IQ_TYPE_IQ2_KS,147, "iq2_ks", 256, sizeof(block_iq2_ks),  IQ2_KS_ROW_META, ENCODES},       iq_decode_iq2_ks},
    {{IQ_TYPE_IQ2_K, 138, "iq2_k",  256, sizeof(block_iq2_k),                   0, ENCODES},     iq_decode_iq2_k},
    {{IQ_TYPE_IQ2_KL,155, "iq2_kl", 256, sizeof(block_iq2_kl),  IQ2_KL_ROW_META, ENCODES},       iq_decode_iq2_kl},
    {{IQ_TYPE_IQ3_KS,154, "iq3_ks", 256, sizeof(block_iq3_ks),  IQ3_KS_ROW_META, ENCODES},       iq_decode_iq3_ks},
    {{IQ_TYPE_IQ3_K, 139, "iq3_k",  256, sizeof(block_iq3_k),                   0, ENCODES},     iq_decode_iq3_k},
    {{IQ_TYPE_IQ4_KSS,148,"iq4_kss",256, sizeof(block_iq4_kss), IQ4_KSS_ROW_META, ENCODES},      iq_decode_iq4_kss},
    {{IQ_TYPE_IQ4_KS,145, "iq4_ks", 256, sizeof(block_iq4_ks),  IQ4_KS_ROW_META, ENCODES},       iq_decode_iq4_ks},
    {{IQ_TYPE_IQ4_K, 140, "iq4_k",  256, sizeof(block_iq4_k),                   0, ENCODES},     iq_decode_iq4_k},
    {{IQ_TYPE_IQ5_KS,150, "iq5_ks", 256, sizeof(block_iq5_ks),  IQ5_KS_ROW_META, ENCODES},       iq_decode_iq5_ks},
    {{IQ_TYPE_IQ5_K, 141, "iq5_k",  256, sizeof(block_iq5_k),                   0, ENCODES},     iq_decode_iq5_k},
    {{IQ_TYPE_IQ6_K, 142, "iq6_k",  256, sizeof(block_iq6_k),                   0, ENCODES},     iq_decode_iq6_k},
};
/* clang-format on */

#define N_FORMAT (sizeof formats / sizeof *formats)

const iq_format *iq_format_row(int32_t id) {
    for (size_t i = 0; i < N_FORMAT; i++) {
        if (formats[i].info.id == id) return &formats[i];
    }
    return NULL;
}

size_t iq_format_count(void) { return N_FORMAT; }

const iq_format_info *iq_format_at(size_t index) { return index < N_FORMAT ? &formats[index].info : NULL; }

const iq_format_info *iq_format_find(int32_t id) {
    const iq_format *format = iq_format_row(id);
    return format ? &format->info : NULL;
}

uint64_t iq_row_bytes(int32_t id, uint64_t n_cols) {
    const iq_format_info *info = iq_format_find(id);
    if (!info || n_cols == 0 || n_cols % info->block_weights) return 0;
    const uint64_t n_block = n_cols / info->block_weights;
    if (n_block > (UINT64_MAX - info->row_meta_bytes) / info->block_bytes) return 0;
    return info->row_meta_bytes + n_block * info->block_bytes;
}

/* The sizes of both sides must fit into the address space: the caller's arrays do. */
static iq_status check_shape(const iq_format_info *info, size_t n_rows, size_t n_cols, iq_error *error) {
    const uint64_t row_bytes = iq_row_bytes(info->id, n_cols);
    if (row_bytes == 0) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "a row of %zu columns cannot be %s: it needs whole blocks of %u", n_cols,
                       info->name, info->block_weights);
    }
    const uint64_t most = PTRDIFF_MAX;
    if (n_rows && (row_bytes > most / n_rows || n_cols > most / sizeof(float) / n_rows)) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "%zu rows of %zu columns do not fit into memory", n_rows, n_cols);
    }
    return IQ_OK;
}

iq_status iq_dequantize_rows(int32_t id, const void *src, size_t n_rows, size_t n_cols, float *dst, iq_error *error) {
    const iq_format *format = iq_format_row(id);
    if (!format) return iq_fail(error, IQ_ERR_UNSUPPORTED, "ggml type %d is not one that iqrun decodes", (int)id);
    const iq_status status = check_shape(&format->info, n_rows, n_cols, error);
    if (status != IQ_OK || n_rows == 0) return status;
    if (!src || !dst) return iq_fail(error, IQ_ERR_ARGUMENT, "iq_dequantize_rows needs a source and a destination");
    const size_t row_bytes = (size_t)iq_row_bytes(id, n_cols);
    const uint8_t *row = src;
    for (size_t i = 0; i < n_rows; i++) format->decode(row + i * row_bytes, n_cols, dst + i * n_cols);
    return IQ_OK;
}
