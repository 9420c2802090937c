/* F32, F16 and BF16 weights against float32 activations. One sum per result, in the order of the columns, so that a
 * result does not depend on how rows and tokens are grouped. */

typedef struct {
    size_t weight_bytes;
    f32x16 (*load)(const void *p);
} float_weights;

IQ_INLINE f32x16 load_f32(const void *p) {
    float v[16]; /* rows of a file may have any alignment */
    memcpy(v, p, sizeof v);
    return f32x16_load(v);
}

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
    f32x16 acc[4][4];
    for (int i = 0; i < 16; i++) acc[i / 4][i % 4] = f32x16_zero();
    const size_t whole = task->n_cols / 16 * 16, rest = task->n_cols - whole;
    for (size_t c = 0; c < task->n_cols; c += 16) {
        f32x16 xs[4];
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

IQ_INLINE void float_rows(const float_weights w, const iq_matmul_task *task, size_t row, int n_rows) {
    size_t t = 0;
    for (; t + FLOAT_TOKENS <= task->n_tokens; t += FLOAT_TOKENS) float_block(w, task, row, t, n_rows, FLOAT_TOKENS);
    for (; t < task->n_tokens; t++) float_block(w, task, row, t, n_rows, 1);
}

IQ_INLINE void float_matmul(const float_weights w, const iq_matmul_task *task) {
    size_t row = 0;
    for (; row + 4 <= task->n_rows; row += 4) float_rows(w, task, row, 4);
    for (; row < task->n_rows; row++) float_rows(w, task, row, 1);
}

static void matmul_f32(const iq_matmul_task *task) { float_matmul((float_weights){4, load_f32}, task); }
static void matmul_f16(const iq_matmul_task *task) { float_matmul((float_weights){2, f32x16_load_f16}, task); }
static void matmul_bf16(const iq_matmul_task *task) { float_matmul((float_weights){2, f32x16_load_bf16}, task); }
