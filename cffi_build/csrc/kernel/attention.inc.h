/* Attention over a range of a paged KV cache, block by block with an online softmax: no memory grows with the context.
 *
 * For each KV block of up to 64 positions:
 *     S[row][position] = q . k
 *     P = 2^(scale / ln 2 * S - running maximum); old sums are scaled down when the maximum grows
 *     out[row] = factor out[row] + P V
 * The products are in attention_float.inc.h and attention_q8.inc.h. K and V are read once for all query rows of the
 * task, and a row's result depends on nothing but the row. What a task leaves in `out` is not divided by the sum of
 * weights yet: ranges are merged first (attention_merge), always the same ones in the same order.
 */

#define ATTN_ROWS 64 /* query rows that share one reading of K and V */
#define ATTN_MAX_DIM 512

/* With few registers a block is read in strips of 16 positions or columns, and the core's own prefetching does not see
 * through the gaps between their lines: each vector that is read asks for one of the block that comes next. */
enum { MANY_REGISTERS = TILE_TOKENS >= 8, FETCH_AHEAD = !MANY_REGISTERS };

typedef struct {
    float d;
    int32_t bias; /* what a sum of products with biased codes starts from */
    int8_t q[32];
} q8_query;

typedef struct {
    float scores[ATTN_ROWS][IQ_KV_BLOCK]; /* then weights */
    float maxima[ATTN_ROWS], sums[ATTN_ROWS]; /* of the softmax so far, per row */
    float factor[ATTN_ROWS];                  /* what a block does to the sums before it */
    union {
        float widened[IQ_KV_BLOCK * ATTN_MAX_DIM]; /* K, then V, of one block */
        struct {
            q8_query queries[ATTN_ROWS][ATTN_MAX_DIM / 32];
            int16_t weights[ATTN_ROWS][IQ_KV_BLOCK];
            float weight_d[ATTN_ROWS], scales[IQ_KV_BLOCK];
        };
    };
} attention_scratch;

_Static_assert(sizeof(attention_scratch) + 64 <= IQ_SCRATCH_BYTES, "one block of K or V and its scores");

/* Query rows [first, first + n) of the task. */
typedef struct {
    const iq_attention_task *task;
    size_t first, n;
    attention_scratch *scratch;
    const uint8_t *ahead; /* the block to be read next, of keys or values */
} attention_rows;

static const float lane_numbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

#include "kernel/attention_soften.inc.h"

#include "kernel/attention_float.inc.h"
#include "kernel/attention_q8.inc.h"

/* Block `block` of the range, whose first position is `before`. */
static void attend_block(attention_rows rows, size_t block, size_t before, size_t n) {
    const iq_attention_task *task = rows.task;
    const uint8_t *k = task->k_blocks[block], *v = task->v_blocks[block];
    const bool q8 = task->kv_type == IQ_TYPE_Q8_0, last = before + n == task->end;
    rows.ahead = v;
    if (q8) {
        score_block_q8(&rows, k, n);
    } else {
        score_block_float(&rows, k, n);
    }
    soften_block(rows.scratch, task, rows.first, rows.n, before, n);
    rows.ahead = last ? k : task->k_blocks[block + 1];
    if (q8) {
        sum_block_q8(&rows, v, n);
    } else {
        sum_block_float(&rows, v, n);
    }
}

static void attend_rows(const attention_rows *rows) {
    const iq_attention_task *task = rows->task;
    attention_scratch *scratch = rows->scratch;
    if (task->kv_type == IQ_TYPE_Q8_0) quantize_queries(rows);
    for (size_t i = 0; i < ATTN_ROWS; i++) scratch->maxima[i] = -INFINITY, scratch->sums[i] = 0.0f;
    memset(task->out + rows->first * task->head_dim, 0, rows->n * task->head_dim * sizeof(float));
    for (size_t at = task->begin; at < task->end; at += IQ_KV_BLOCK) {
        attend_block(*rows, (at - task->begin) / IQ_KV_BLOCK, at, iq_min_size(IQ_KV_BLOCK, task->end - at));
    }
    for (size_t i = 0; i < rows->n; i++) {
        task->norms[rows->first + i] = (iq_attention_norm){scratch->maxima[i], scratch->sums[i]};
    }
}

static void attention(const iq_attention_task *task) {
    for (size_t first = 0; first < task->n_q; first += ATTN_ROWS) {
        const size_t n = iq_min_size(ATTN_ROWS, task->n_q - first);
        attend_rows(&(attention_rows){.task = task, .first = first, .n = n, .scratch = task->scratch});
    }
}

/* total += part, both brought to the larger maximum first. */
static void attention_merge(const float *part, iq_attention_norm norm, size_t n, float *total,
                            iq_attention_norm *total_norm) {
    const float now = norm.maximum > total_norm->maximum ? norm.maximum : total_norm->maximum;
    const float old_factor = total_norm->maximum == now ? 1.0f : exp2f(total_norm->maximum - now);
    const float new_factor = norm.maximum == now ? 1.0f : exp2f(norm.maximum - now);
    for (size_t i = 0; i < n; i += 16) {
        const size_t left = n - i;
        const f32x16 kept = f32x16_mul(load_up_to_16(total + i, left), f32x16_set1(old_factor));
        const f32x16 sum = f32x16_fma(load_up_to_16(part + i, left), f32x16_set1(new_factor), kept);
        store_up_to_16(total + i, sum, left);
    }
    *total_norm = (iq_attention_norm){now, total_norm->sum * old_factor + norm.sum * new_factor};
}

static void attention_divide(const float *total, iq_attention_norm norm, size_t n, float *out) {
    const f32x16 scale = f32x16_set1(1.0f / norm.sum);
    for (size_t i = 0; i < n; i += 16) {
        const size_t left = n - i;
        store_up_to_16(out + i, f32x16_mul(load_up_to_16(total + i, left), scale), left);
    }
}
