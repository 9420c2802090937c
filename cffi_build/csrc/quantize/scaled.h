/* Row encoder of the formats whose sub-blocks share one d: the K types (d per superblock), the KS types (d per row). */
#ifndef IQ_QUANTIZE_SCALED_H
#define IQ_QUANTIZE_SCALED_H

#include "base/fp16.h"
#include "quantize/encode.h"
#include "quantize/search.h"

/* One superblock, searched and ready to be packed. */
typedef struct {
    uint8_t code[IQ_SUPERBLOCK]; /* in the order of the weights */
    int16_t k[IQ_LANES];         /* scale of each sub-block = d * (step * k + phase) */
    uint16_t shifted;            /* bit sb: second codebook */
    uint16_t d;                  /* fp16; K types only */
} iq_superblock;

typedef struct {
    void (*make_book)(iq_book *book);
    iq_scale_rule rule;
    uint32_t sub; /* weights per sub-block */
    uint32_t block_bytes;
    uint32_t row_meta_bytes; /* the row's d; 0: each superblock has its own */
    void (*pack)(const iq_superblock *s, uint8_t *block);
} iq_scaled_format;

void iq_encode_scaled(const iq_scaled_format *format, const iq_encode_job *job, const float *x, const float *importance,
                      size_t n_cols, uint8_t *row);
/* The d that iq_encode_scaled would find for n_cols weights, all under one d. */
float iq_scaled_solve_d(const iq_scaled_format *format, const iq_encode_job *job, const float *x,
                        const float *importance, size_t n_cols);

/* Writes d in front of a row. */
void iq_scaled_write_d(const iq_scaled_format *format, float d, uint8_t *row);

size_t iq_scaled_scratch_bytes(const iq_scaled_format *format, size_t n_cols);

#endif
