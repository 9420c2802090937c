/* The kernel table: what the engine calls, filled once per instruction set by kernel_<isa>.c.
 *
 * Activations meet quantized weights as int8 with one float scale per 32 columns, grouped by 256 columns
 * (iq_q8_block). Per 16-column slot the block carries its scale `d` and `s` = d * the sum of its integers, so that
 * constants of a codebook (an offset, a shifted copy, a minimum) cost one multiply-add per slot and never touch the
 * codes. A weight is sw[slot] * code + mw[slot] in every format, which makes one loop serve all of them:
 *
 *     y = sum_slot  sw[slot] * d[slot] * sum_i code[i] * q[i]  +  mw[slot] * s[slot]
 *
 * Scales per 32 columns (not per 256) cost nothing here and make the activations' rounding error smaller.
 *
 * Slots stand in the order in which a format's unpacking meets them (iq_slot_order): the activations are permuted once
 * per matmul input, the weights never.
 */
#ifndef IQ_KERNEL_KERNELS_H
#define IQ_KERNEL_KERNELS_H

#include "format/format.h"
#include "kernel/kv_layout.h"

#define IQ_SLOTS 16 /* 16-column slots per superblock */

/* 448 bytes, 64-byte aligned. The three vectors stand in lane order (kernel/slot_order.h), q in slot order. */
typedef struct {
    alignas(64) float d[IQ_SLOTS]; /* scale of the slot's 32-column block */
    float s[IQ_SLOTS];             /* d * sum of the slot's 16 q */
    int32_t bias[IQ_SLOTS];        /* -128 * that sum: takes back the +128 of codes that a kernel wants unsigned */
    int8_t q[IQ_SUPERBLOCK];       /* -127..127 from quantize_x; kernels are exact for -128 too */
} iq_q8_block;

_Static_assert(sizeof(iq_q8_block) == 448, "three vectors of slots and 256 codes");

/* In which order slots (16 columns each) of a superblock are stored; slot i holds columns 16 * order[i] ... + 15. */
typedef enum {
    IQ_ORDER_NATURAL = 0, /* 0 1 2 ... 15 */
    IQ_ORDER_HALVES,      /* 0 1 8 9  2 3 10 11 ...: 32 columns of each half of the superblock in turn (2-, 3-bit codes) */
    IQ_ORDER_NIBBLE16,    /* 0 2 4 6  1 3 5 7 ...: low, then high nibbles of 64 bytes, nibbles 16 apart (IQ4_K ...) */
    IQ_ORDER_NIBBLE32,    /* 0 1 4 5  2 3 6 7 ...: the same, nibbles 32 apart (IQ5_K, IQ6_K, Q4_K ...) */
    IQ_ORDER_PAIRS,       /* 0 4 8 12  1 5 9 13 ..., where 2b and 2b + 1 are even and odd columns of 32-block b (IQ2_KL) */
    IQ_ORDERS
} iq_slot_order;

#define IQ_SCRATCH_BYTES (256 * 1024) /* per thread, 64-byte aligned */

/* Sums in the order of few or of many tokens; the results of a token do not depend on what shares the task. */
typedef enum { IQ_SHAPE_AUTO = 0, IQ_SHAPE_FEW, IQ_SHAPE_MANY } iq_matmul_shape;

/* y[t * y_stride + r] = W[r] . x[t]; with `add` the product is added to y. */
typedef struct {
    const uint8_t *rows; /* n_rows rows of row_bytes each, contiguous, any alignment */
    size_t row_bytes, n_rows, n_cols;
    const void *x;       /* iq_q8_block in the format's order, or float32 for the float types; token after token */
    size_t x_stride;     /* bytes from one token to the next */
    bool panels;         /* x holds panels instead (iq_kernels.pack_x); only for IQ_SHAPE_MANY */
    size_t n_tokens;
    float *y;
    size_t y_stride;     /* floats from one token to the next */
    /* A second band of n_more <= n_rows rows and their results, or 0: few tokens take the rows of both in turn, since a
     * thread reads memory faster from two places than from one. */
    const uint8_t *more_rows;
    float *more_y;
    size_t n_more, more_y_stride;
    void *scratch;
    bool packed;         /* scratch is as the last task with the same type, columns, x and n_tokens left it */
    bool add;
    iq_matmul_shape shape;
} iq_matmul_task;

typedef void (*iq_matmul_fn)(const iq_matmul_task *task);

/* How a weight format wants its activations. */
typedef enum { IQ_X_F32 = 0, IQ_X_Q8 = 1 } iq_x_kind;

typedef struct {
    int32_t type;        /* ggml type id */
    iq_x_kind x_kind;
    iq_slot_order order; /* of the q8 blocks */
    iq_matmul_fn matmul; /* any number of rows and tokens */
} iq_format_kernels;

/* The running softmax of one query row: its sums are relative to 2^maximum; the sum of its weights. */
typedef struct {
    float maximum, sum;
} iq_attention_norm;

/* One tile of attention: n_q query rows (the heads of one GQA group, for some consecutive tokens) against positions
 * [begin, end) of one KV head; begin is a multiple of IQ_KV_BLOCK. Every row sees at least position `begin`. */
typedef struct {
    const float *q;             /* query row i at q + i * q_stride, head_dim floats */
    size_t n_q, q_stride, head_dim;
    const uint32_t *n_visible;  /* per query row: it sees positions below n_visible[i] */
    size_t begin, end;
    const uint8_t *const *k_blocks, *const *v_blocks; /* this KV head in each KV block from `begin` on */
    int32_t kv_type;
    float scale;
    float *out;                 /* n_q rows of head_dim: weighted sums of V, not divided yet */
    iq_attention_norm *norms;   /* per query row */
    void *scratch;
} iq_attention_task;

struct iq_kernels {
    const char *isa;
    /* n_cols floats to ceil(n_cols / 256) blocks; columns past the end are zeros. The same bytes on every ISA. */
    void (*quantize_x)(const float *x, size_t n_cols, iq_slot_order order, iq_q8_block *out);
    /* Many tokens are multiplied in panels: one superblock of panel_tokens tokens in panel_bytes bytes. Activations may
     * be handed over in them: those of the first tokens, superblock after superblock, then those of the next; pack_x
     * puts one token's superblock into its panel. Otherwise a matmul packs, again for each of its calls. panel_bytes is
     * 0 where kernels have no panels to share. */
    size_t panel_tokens, panel_bytes;
    void (*pack_x)(const iq_q8_block *block, iq_slot_order order, size_t token, void *panel);
    void (*rms_norm)(const float *x, const float *weight, size_t n, float eps, float *out); /* weight NULL = ones */
    void (*silu_mul)(const float *gate, const float *up, size_t n, float *out);             /* may alias */
    void (*add)(const float *x, size_t n, float *out);                                      /* out += x */
    void (*rope)(float *x, const float *table, size_t n_rot, bool halves);                  /* table: cos, then sin */
    void (*kv_store)(const float *x, size_t n, int32_t kv_type, void *out); /* n values to a row: kv_layout.h */
    void (*attention)(const iq_attention_task *task);
    /* Adds the sums of another range of positions to a row's total; divides them by the sum of weights. */
    void (*attention_merge)(const float *part, iq_attention_norm norm, size_t n, float *total,
                            iq_attention_norm *total_norm);
    void (*attention_divide)(const float *total, iq_attention_norm norm, size_t n, float *out);
    const iq_format_kernels *formats; /* n_formats rows */
    size_t n_formats;
};

/* The row of `type` in the table, or NULL if the table does not multiply that format. */
const iq_format_kernels *iq_format_kernels_find(const iq_kernels *kernels, int32_t type);

#endif
