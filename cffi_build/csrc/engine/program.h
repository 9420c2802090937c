/* A checked program and the stages that run it. Immutable once created. */
#ifndef IQ_ENGINE_PROGRAM_H
#define IQ_ENGINE_PROGRAM_H

#include "engine/memory.h"
#include "kernel/kernels.h"

#define IQ_MAX_HEAD_DIM 512
#define IQ_MAX_EXPERTS 4096
#define IQ_ROW_UNIT 32 /* a matrix is cut into chunks, or pieces of a file, at multiples of so many rows */

typedef struct {
    const uint8_t *data;
    int32_t type;
    size_t n_rows, n_cols, row_bytes; /* of one matrix, if it has experts */
    uint32_t n_expert;
    iq_decode_fn decode;
    const iq_format_kernels *kernels; /* NULL if the table does not multiply this type */
    float *vector;                    /* aligned copy where an op uses it as a vector (norm, bias, frequencies) */
} iq_program_weight;

/* One op is one stage, except that attention is two and that activations may have to be quantized in between. */
typedef enum {
    IQ_STAGE_EMBED,
    IQ_STAGE_SELECT,
    IQ_STAGE_RMS_NORM,
    IQ_STAGE_MATMUL,
    IQ_STAGE_GATED_MATMUL,
    IQ_STAGE_ROPE_TABLE,
    IQ_STAGE_ROPE,
    IQ_STAGE_KV_STORE,
    IQ_STAGE_ATTEND,
    IQ_STAGE_ADD,
    IQ_STAGE_ROUTE,
    IQ_STAGE_DEAL,
    IQ_STAGE_COLLECT,
    IQ_STAGE_QUANTIZE,
} iq_stage_kind;

typedef struct {
    iq_stage_kind kind;
    uint32_t op;
    int32_t buffer; /* written by the stage: dst[0], or the buffer that QUANTIZE reads; -1 = none that matters */
    uint8_t orders; /* bit per iq_slot_order: int8 companions of `buffer` that the stage writes */
} iq_stage;

typedef struct {
    uint32_t n_head_kv, head_dim;
} iq_kv_shape;

struct iq_program {
    const iq_kernels *kernels;
    iq_memory memory;
    uint32_t n_op, n_buffer, n_weight, n_layer, n_vocab, n_stage;
    int32_t output;
    iq_op *ops;
    iq_buffer *buffers;
    iq_program_weight *weights;
    iq_stage *stages;
    uint32_t *first_stage;  /* of each op; n_op + 1 entries */
    uint8_t *buffer_orders; /* companions that each buffer needs, bit per order */
    iq_kv_shape *layers;
    uint32_t n_op_caching;           /* the KV cache is complete after so many ops */
    uint32_t max_group;              /* most query heads that share a KV head */
    uint32_t max_expert, max_used;   /* most experts of a ROUTE, and most that a token uses; 0 without */
    uint32_t max_head, max_head_dim; /* of any attention */
};

/* Where an op stands in error messages. */
const char *iq_op_name(int32_t kind);

/* check.c: every index and shape of ops, buffers and weights (the spec's descriptors). */
iq_status iq_program_check(const iq_program *program, const iq_weight *weights, iq_error *error);

/* plan.c: fills stages, first_stage and buffer_orders, which have room for what iq_plan_max_stages says. */
uint64_t iq_plan_max_stages(uint64_t n_op);
iq_status iq_program_plan(iq_program *program, iq_error *error);

IQ_INLINE size_t iq_q8_blocks(size_t n_cols) { return (n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK; }

IQ_INLINE bool iq_op_is_matmul(int32_t kind) { return kind == IQ_OP_MATMUL || kind == IQ_OP_GATED_MATMUL; }

/* How many of dst an op fills. */
IQ_INLINE int iq_op_results(const iq_op *op) {
    return op->kind == IQ_OP_MATMUL ? op->n : op->kind == IQ_OP_ROUTE ? 2 : 1;
}

#endif
