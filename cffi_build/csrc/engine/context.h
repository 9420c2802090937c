/* One running model: buffers, KV cache, threads and the state of the step in progress. */
#ifndef IQ_ENGINE_CONTEXT_H
#define IQ_ENGINE_CONTEXT_H

#include <stdatomic.h>

#include "engine/kv_cache.h"
#include "engine/program.h"
#include "engine/stream.h"
#include "engine/thread_pool.h"

#define IQ_TEMP_FLOATS 65536 /* per thread: the `up` half of a gated matmul */
#define IQ_TILE_QUERIES 64   /* query rows of one attention tile, if one token has not more heads per KV head */
#define IQ_TILE_TOKENS 32    /* most tokens of one attention tile */
#define IQ_ATTEND_RANGE 512  /* positions that are summed up on their own; a multiple of IQ_KV_BLOCK */
#define IQ_SPLIT_TOKENS 8    /* steps of more tokens give each thread whole tiles */

/* Consecutive tokens of one sequence. */
typedef struct {
    uint32_t seq, first, n;
} iq_tile;

/* The tokens of the step in progress. */
typedef struct {
    uint32_t n_tokens, n_outputs, n_tiles;
    int32_t *token;
    uint32_t *seq, *pos; /* per token */
    uint32_t *output;    /* token index of each wanted output */
    uint32_t *n_new;     /* per sequence: tokens in this batch */
    iq_tile *tiles;
    iq_step_way way;
} iq_step_batch;

/* Rows of a buffer that was dealt to experts: [first, first + n) go to one of them. */
typedef struct {
    uint32_t first, n, expert;
} iq_expert_tile;

/* Where the last ROUTE of the step sent its rows. Dealt rows are in order of expert, and of row within one. */
typedef struct {
    uint32_t n_rows, n_used, n_expert;
    uint32_t *expert;      /* [row * n_used + i] */
    uint32_t *place;       /* the same: its dealt row */
    uint32_t *source;      /* per dealt row: the row that it copies */
    uint32_t *first;       /* per expert, and the end: its first dealt row */
    iq_expert_tile *tiles; /* of the matmul in progress */
} iq_routing;

/* The stage in progress: written between stages, read by all threads. */
typedef struct {
    const iq_stage *stage;
    const iq_op *op;
    uint64_t number;          /* of all stages that this context has run; from 1 on */
    uint32_t n_rows;          /* rows of the stage's buffers */
    uint32_t units_per_chunk; /* rows (row-wise stages), weight rows (matmul), tile-and-head units (attention) */
    uint32_t n_units;
    uint32_t tokens_per_tile, n_tiles;          /* matmul: tokens that one chunk multiplies; streamed: all */
    bool in_bands;                              /* matmul: chunks have rows of a matrix's first half and of its second */
    uint32_t chunks_per_tile;                   /* matmul */
    uint32_t first_chunk[IQ_OP_SLOTS + 1];      /* matmul: where the chunks of each weight start in a tile */
    uint32_t heads_per_unit, units_per_kv_head; /* attention */
    uint32_t n_tasks, n_ranges;                 /* attention: tile-and-head parts; ranges that each is split into */
} iq_stage_run;

/* Which activations a matmul left in the scratch memory, in the form that its kernel gives them. */
typedef struct {
    uint64_t stage; /* iq_stage_run.number */
    const iq_format_kernels *kernels;
    uint32_t first_token, n_tokens;
} iq_packed_x;

typedef struct {
    alignas(64) uint8_t *scratch; /* IQ_SCRATCH_BYTES for kernels */
    iq_packed_x packed;
    float *temp;           /* IQ_TEMP_FLOATS */
    uint32_t *n_visible;   /* per query row of a tile; so are the next */
    float *queries;        /* gathered, if they have no common stride */
    float *totals, *parts; /* sums over all ranges so far, and over one */
    iq_attention_norm *total_norms, *part_norms;
} iq_thread_memory;

/* Attention that several threads share by ranges: per range and query row of the step, the sums and their norm. */
typedef struct {
    float *sums;
    iq_attention_norm *norms;
    _Atomic uint32_t *n_done; /* per task: ranges that are summed up */
    size_t n_row, n_task;     /* per range; tasks at most */
} iq_split_memory;

struct iq_context {
    const iq_program *program;
    const iq_kernels *kernels;
    iq_context_params params;
    iq_memory memory;
    uint64_t bytes;
    iq_thread_pool *pool;
    iq_stream *stream;             /* where the weights come from; NULL: from the program's memory */
    float **buffers;               /* per buffer */
    float *own_output;             /* the output buffer's own memory: iq_step lets it point to the caller's */
    void **companions;             /* [buffer * IQ_ORDERS + order]: companion.h; NULL where none is needed */
    _Atomic uint32_t *n_cols_done; /* [tile][superblock]: see companion.h */
    size_t n_counter;
    iq_thread_memory *threads;
    iq_split_memory split;
    iq_kv_cache kv;
    iq_step_batch batch;
    iq_routing routing;
    iq_stage_run run;
    _Atomic uint32_t next_chunk; /* streamed matmul: chunks are dealt out in the order of the weights' rows */

    _Atomic bool in_call, cancelled;
    bool stepping, failed; /* between iq_step_begin and iq_step_end; a run of it was cancelled */
    bool skipped;          /* iq_step_seek passed over ops of it */
    uint32_t next_op;
    uint32_t next_stage, end_stage; /* of the iq_step_run in progress */

    bool profiling;
    double *seconds; /* per op */
    uint64_t profile_start;
};

/* A context serves one call at a time: enter refuses (IQ_ERR_ARGUMENT) while another thread is in one. */
iq_status iq_context_enter(iq_context *context, iq_error *error);
void iq_context_leave(iq_context *context);

IQ_INLINE uint32_t iq_domain_rows(const iq_context *context, int32_t buffer) {
    const iq_buffer *b = &context->program->buffers[buffer];
    const uint32_t n_rows = b->domain == IQ_ROWS_OUTPUTS ? context->batch.n_outputs : context->batch.n_tokens;
    return b->n_used == 0 ? n_rows : n_rows * b->n_used;
}

/* Floats from row to row. Whole cache lines, an odd number of them: rows that are multiples of 4 KiB apart would all fall
 * into the same few places of the first-level cache, where a matmul meets several of them at once. Those of the output
 * stand next to each other, as the caller's do. */
IQ_INLINE size_t iq_buffer_stride(const iq_program *program, int32_t buffer) {
    const size_t n_cols = program->buffers[buffer].n_cols, line = 64 / sizeof(float);
    return buffer == program->output ? n_cols : iq_round_up(n_cols, line) | line;
}

IQ_INLINE float *iq_buffer_row(const iq_context *context, int32_t buffer, size_t row) {
    return context->buffers[buffer] + row * iq_buffer_stride(context->program, buffer);
}

#endif
