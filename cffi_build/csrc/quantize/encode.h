/* Row encoders: float32 to blocks, found by storage type. */
#ifndef IQ_QUANTIZE_ENCODE_H
#define IQ_QUANTIZE_ENCODE_H

#include "format/format.h"

typedef struct iq_encoder iq_encoder;
typedef struct iq_search iq_search;

/* How to encode; the same for all rows of a call. */
typedef struct {
    iq_effort effort;
    const iq_search *search; /* iq_search_best() */
    void *scratch;           /* 64-byte aligned, iq_encode_scratch_bytes long; its content does not matter */
} iq_encode_job;

const iq_encoder *iq_encoder_find(int32_t id); /* NULL: this type is decoded only */
size_t iq_encode_scratch_bytes(const iq_encoder *encoder, size_t n_cols);

/* Encodes one row. Every x is finite; importance is NULL or n_cols finite weights >= 0, not all zero; n_cols is a
 * multiple of the type's block. The bytes depend on nothing but x, importance and the effort. */
void iq_encode_row(const iq_encoder *encoder, const iq_encode_job *job, const float *x, const float *importance,
                   size_t n_cols, uint8_t *row);

/* The search for this CPU; IQRUN_ISA in the environment may ask for a lower level. */
const iq_search *iq_search_best(void);

#endif
