/* F32, F16 and BF16 weights against float32 activations. One sum per result, in the order of the columns, so that a
 * result does not depend on how rows and tokens are grouped. */

#define FLOAT_CACHE_BYTES (128 * 1024) /* activations that stay in the second-level cache while rows pass by */

typedef struct {
    size_t weight_bytes;
    f32x16 (*load)(const void *p);
} float_weights;

/* f32x16_load asks for no alignment. */
IQ_INLINE f32x16 load_f32(const void *p) { return f32x16_load((const float *)p); }

IQ_INLINE f32x16 load_first(const float_weights w, const uint8_t *p, size_t n) {
    uint8_t padded[16 * sizeof(float)] = {0};
    memcpy(padded, p, n * w.weight_bytes);
    return w.load(padded);
}

/* n_rows x n_tokens results, constants of each instance. */
IQ_INLINE void float_block(const float_weights w, const iq_matmul_task *task, size_t row, size_t token, int n_rows,
                           int n_tokens) {
    const uint8_t *rows = task->rows + row * task->row_bytes;
    const uint8_t *x = (const uint8_t *)task->x + token * task->x_stride;
    f32x16 acc[FLOAT_ROWS][FLOAT_TOKENS];
    for (int r = 0; r < n_rows; r++) {
        for (int t = 0; t < n_tokens; t++) acc[r][t] = f32x16_zero();
    }
    const size_t whole = task->n_cols / 16 * 16, rest = task->n_cols - whole;
    for (size_t c = 0; c < task->n_cols; c += 16) {
        f32x16 xs[FLOAT_TOKENS];
        for (int t = 0; t < n_tokens; t++) {
            const float *p = (const float *)(x + (size_t)t * task->x_stride) + c;
            xs[t] = c < whole ? f32x16_load(p) : f32x16_load_n(p, rest);
        }
        for (int r = 0; r < n_rows; r++) {
            const uint8_t *p = rows + (size_t)r * task->row_bytes + c * w.weight_bytes;
            const f32x16 weights = c < whole ? w.load(p) : load_first(w, p, rest);
            for (int t = 0; t < n_tokens; t++) acc[r][t] = f32x16_fma(weights, xs[t], acc[r][t]);
        }
    }
    for (int t = 0; t < n_tokens; t++) {
        float *y = task->y + (token + (size_t)t) * task->y_stride + row;
        for (int r = 0; r < n_rows; r++) {
            const float sum = f32x16_reduce_add(acc[r][t]);
            y[r] = task->add ? y[r] + sum : sum;
        }
    }
}

IQ_INLINE void float_rows(const float_weights w, const iq_matmul_task *task, size_t row, int n_rows, size_t first,
                          size_t end) {
    for (; first + FLOAT_TOKENS <= end; first += FLOAT_TOKENS) float_block(w, task, row, first, n_rows, FLOAT_TOKENS);
    for (; first < end; first++) float_block(w, task, row, first, n_rows, 1);
}

IQ_INLINE void float_matmul(const float_weights w, const iq_matmul_task *task) {
    const size_t fitting = FLOAT_CACHE_BYTES / (task->n_cols * sizeof(float));
    const size_t group = fitting > FLOAT_TOKENS ? fitting / FLOAT_TOKENS * FLOAT_TOKENS : FLOAT_TOKENS;
    for (size_t first = 0; first < task->n_tokens; first += group) {
        const size_t end = iq_min_size(first + group, task->n_tokens);
        size_t row = 0;
        for (; row + FLOAT_ROWS <= task->n_rows; row += FLOAT_ROWS) float_rows(w, task, row, FLOAT_ROWS, first, end);
        for (; row < task->n_rows; row++) float_rows(w, task, row, 1, first, end);
    }
}

static void matmul_f32(const iq_matmul_task *task) { float_matmul((float_weights){4, load_f32}, task); }
static void matmul_f16(const iq_matmul_task *task) { float_matmul((float_weights){2, f32x16_load_f16}, task); }
static void matmul_bf16(const iq_matmul_task *task) { float_matmul((float_weights){2, f32x16_load_bf16}, task); }
