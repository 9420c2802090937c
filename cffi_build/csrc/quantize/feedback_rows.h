/* Rows with error feedback: sixteen of them, superblock after superblock. */
#ifndef IQ_QUANTIZE_FEEDBACK_ROWS_H
#define IQ_QUANTIZE_FEEDBACK_ROWS_H

#include "quantize/feedback.h"

typedef struct feedback_memory feedback_memory;

/* How to encode; the same for all rows of a call. */
typedef struct {
    const iq_scaled_format *format;
    int32_t id;
    size_t n_cols, row_bytes;
    const float *feedback, *curvature; /* (n_cols, n_cols) F and (n_cols) D */
    iq_effort effort;
    bool again; /* a later pass: the rows hold codes already */
    const iq_search *search;
    feedback_memory *memory; /* laid out by iq_feedback_layout */
} iq_feedback_job;

/* At most sixteen rows. */
typedef struct {
    const float *weights; /* (n, n_cols) */
    uint8_t *rows;        /* (n, row_bytes) */
    float *loss;          /* (n) */
    size_t n;
} iq_feedback_rows_at_once;

/* Place i of a superblock in feedback order holds its column order[i]. */
void iq_feedback_make_order(const iq_book *book, uint8_t order[IQ_SUPERBLOCK]);

/* Bytes of scratch memory; if `memory` (64-byte aligned) is not NULL, it is made ready. */
size_t iq_feedback_layout(const iq_feedback_job *job, void *memory);

iq_status iq_feedback_encode(const iq_feedback_job *job, const iq_feedback_rows_at_once *set, iq_error *error);

#endif
