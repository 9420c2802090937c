/* F32, F16 and BF16 weights against float32 activations: blocks of FLOAT_ROWS x FLOAT_TOKENS sums in registers. The
 * sum of a result goes over the columns in one order, so that it does not depend on how rows and tokens are grouped. */

#define FLOAT_DEPTH 1024 /* columns at a time: the activations of FLOAT_TOKENS tokens stay in the first-level cache */
#define FLOAT_WEIGHTS_BYTES (256 * 1024) /* of rows at a time: they stay in the second-level cache */

#ifndef F32V /* ops without a register of floats of their own: the 16 floats are one */
#define F32V 16
typedef f32x16 f32v;
#define f32v_zero f32x16_zero
#define f32v_load_f16 f32x16_load_f16
#define f32v_load_bf16 f32x16_load_bf16
#define f32v_fma f32x16_fma
#define f32v_reduce_add f32x16_reduce_add
IQ_INLINE f32v f32v_load(const void *p) { return f32x16_load((const float *)p); } /* of any alignment */
#endif

/* Loops over sums: unrolled, or gcc keeps the sums in memory too. */
#if defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 8")
#else
#define UNROLL
#endif

typedef struct {
    size_t bytes;
    f32v (*load)(const void *p);
} float_weights;

/* n < F32V values, then zeros */
IQ_INLINE f32v float_load_n(const float_weights w, const uint8_t *p, size_t n) {
    uint8_t padded[F32V * sizeof(float)] = {0};
    memcpy(padded, p, n * w.bytes);
    return w.load(padded);
}

/* Rows and tokens from a corner on, columns [first, end). */
typedef struct {
    size_t row, token, first, end;
} float_part;

/* n_rows x n_tokens results, constants of each instance. */
IQ_INLINE void float_block(const float_weights w, const iq_matmul_task *task, float_part part, int n_rows,
                           int n_tokens) {
    const float_weights x_type = {sizeof(float), f32v_load};
    const size_t whole = part.first + (part.end - part.first) / F32V * F32V, rest = part.end - whole;
    const uint8_t *rows = task->rows + part.row * task->row_bytes;
    const uint8_t *x = (const uint8_t *)task->x + part.token * task->x_stride;
    f32v acc[FLOAT_TOKENS][FLOAT_ROWS];
    for (int t = 0; t < n_tokens; t++) {
        for (int r = 0; r < n_rows; r++) acc[t][r] = f32v_zero();
    }
    for (size_t c = part.first; c < whole; c += F32V) {
        f32v weights[FLOAT_ROWS];
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = rows + (size_t)r * task->row_bytes + c * w.bytes;
            if (n_tokens == 1) PREFETCH(p + FLOAT_ROWS * task->row_bytes); /* rows are pages: none foretells the next */
            weights[r] = w.load(p);
        }
        for (int t = 0; t < n_tokens; t++) {
            const f32v xs = f32v_load(x + (size_t)t * task->x_stride + c * sizeof(float));
            for (int r = 0; r < n_rows; r++) acc[t][r] = f32v_fma(weights[r], xs, acc[t][r]);
        }
    }
    UNROLL
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *p = rows + (size_t)r * task->row_bytes + whole * w.bytes;
        const f32v weights = rest > 0 ? float_load_n(w, p, rest) : f32v_zero();
        UNROLL
        for (int t = 0; t < n_tokens; t++) {
            float *y = task->y + (part.token + (size_t)t) * task->y_stride + part.row + r;
            const uint8_t *xs = x + (size_t)t * task->x_stride + whole * sizeof(float);
            if (rest > 0) acc[t][r] = f32v_fma(weights, float_load_n(x_type, xs, rest), acc[t][r]);
            const float sum = f32v_reduce_add(acc[t][r]);
            *y = task->add || part.first > 0 ? *y + sum : sum;
        }
    }
}

/* Rows [part.row, end_row), for n_tokens tokens. */
IQ_INLINE void float_rows(const float_weights w, const iq_matmul_task *task, float_part part, size_t end_row,
                          int n_tokens) {
    for (; part.row + FLOAT_ROWS <= end_row; part.row += FLOAT_ROWS) float_block(w, task, part, FLOAT_ROWS, n_tokens);
    for (; part.row < end_row; part.row++) float_block(w, task, part, 1, n_tokens);
}

/* The same for all tokens. */
IQ_INLINE void float_tokens(const float_weights w, const iq_matmul_task *task, float_part part, size_t end_row) {
    for (; task->n_tokens - part.token >= FLOAT_TOKENS; part.token += FLOAT_TOKENS) {
        float_rows(w, task, part, end_row, FLOAT_TOKENS);
    }
    switch (task->n_tokens - part.token) {
    case 3: float_rows(w, task, part, end_row, 3); break;
    case 2: float_rows(w, task, part, end_row, 2); break;
    case 1: float_rows(w, task, part, end_row, 1); break;
    default: break;
    }
}

_Static_assert(FLOAT_TOKENS == 4, "the switch above lists what may be left");

/* Few tokens read each row to its end, one after the other. */
IQ_INLINE void float_matmul(const float_weights w, const iq_matmul_task *task) {
    const size_t n_resting = FLOAT_WEIGHTS_BYTES / (FLOAT_DEPTH * w.bytes) / FLOAT_ROWS * FLOAT_ROWS;
    const size_t n_rows = task->n_tokens > FLOAT_TOKENS ? n_resting : FLOAT_ROWS;
    for (size_t row = 0; row < task->n_rows; row += n_rows) {
        const size_t end_row = iq_min_size(row + n_rows, task->n_rows);
        for (size_t first = 0; first < task->n_cols; first += FLOAT_DEPTH) {
            const float_part part = {row, 0, first, iq_min_size(first + FLOAT_DEPTH, task->n_cols)};
            float_tokens(w, task, part, end_row);
        }
    }
}

#define DEFINE_FLOAT_MATMUL(name, bytes, load)                                                                         \
    static void matmul_##name(const iq_matmul_task *task) {                                                            \
        if (task->n_more > 0)                                                                                          \
            each_band(task, matmul_##name);                                                                            \
        else                                                                                                           \
            float_matmul((float_weights){bytes, load}, task);                                                          \
    }
DEFINE_FLOAT_MATMUL(f32, 4, f32v_load)
DEFINE_FLOAT_MATMUL(f16, 2, f32v_load_f16)
DEFINE_FLOAT_MATMUL(bf16, 2, f32v_load_bf16)
