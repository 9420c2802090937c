/* Row-wise float operations. A row's length need not be a multiple of 16. */

#define SQUARE_SUMS 4 /* independent sums hide the latency of the multiply-add */

static float sum_of_squares(const float *x, size_t n) {
    f32x16 sum[SQUARE_SUMS];
    for (int k = 0; k < SQUARE_SUMS; k++) sum[k] = f32x16_zero();
    size_t i = 0;
    for (; i + 16 * SQUARE_SUMS <= n; i += 16 * SQUARE_SUMS) {
        for (int k = 0; k < SQUARE_SUMS; k++) {
            const f32x16 v = f32x16_load(x + i + 16 * (size_t)k);
            sum[k] = f32x16_fma(v, v, sum[k]);
        }
    }
    for (; i < n; i += 16) {
        const f32x16 v = n - i < 16 ? f32x16_load_n(x + i, n - i) : f32x16_load(x + i);
        sum[0] = f32x16_fma(v, v, sum[0]);
    }
    return f32x16_reduce_add(f32x16_add(f32x16_add(sum[0], sum[1]), f32x16_add(sum[2], sum[3])));
}

/* out = x / sqrt(mean(x^2) + eps) * weight; out may be x. */
static void rms_norm(const float *x, const float *weight, size_t n, float eps, float *out) {
    const f32x16 scale = f32x16_set1(1.0f / sqrtf(sum_of_squares(x, n) / (float)n + eps));
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const f32x16 y = f32x16_mul(f32x16_load(x + i), scale);
        f32x16_store(out + i, weight ? f32x16_mul(y, f32x16_load(weight + i)) : y);
    }
    if (i == n) return;
    const f32x16 y = f32x16_mul(f32x16_load_n(x + i, n - i), scale);
    f32x16_store_n(out + i, weight ? f32x16_mul(y, f32x16_load_n(weight + i, n - i)) : y, n - i);
}

IQ_INLINE f32x16 silu(f32x16 x) {
    const f32x16 one = f32x16_set1(1.0f), minus = f32x16_sub(f32x16_zero(), x);
    return f32x16_div(x, f32x16_add(one, f32x16_exp(minus)));
}

/* out = silu(gate) * up, silu(x) = x / (1 + exp(-x)); out may be gate or up. */
static void silu_mul(const float *gate, const float *up, size_t n, float *out) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16) f32x16_store(out + i, f32x16_mul(silu(f32x16_load(gate + i)), f32x16_load(up + i)));
    if (i == n) return;
    const f32x16 y = f32x16_mul(silu(f32x16_load_n(gate + i, n - i)), f32x16_load_n(up + i, n - i));
    f32x16_store_n(out + i, y, n - i);
}

static void add(const float *x, size_t n, float *out) {
    size_t i = 0;
    for (; i + 16 <= n; i += 16) f32x16_store(out + i, f32x16_add(f32x16_load(out + i), f32x16_load(x + i)));
    if (i == n) return;
    f32x16_store_n(out + i, f32x16_add(f32x16_load_n(out + i, n - i), f32x16_load_n(x + i, n - i)), n - i);
}

/* Columns i and i + half turn together: 16 pairs at a time. */
static void rope_halves(float *x, const float *table, size_t half) {
    for (size_t i = 0; i < half; i += 16) {
        const size_t n = iq_min_size(16, half - i);
        const f32x16 a = f32x16_load_n(x + i, n), b = f32x16_load_n(x + half + i, n);
        const f32x16 c = f32x16_load_n(table + i, n), s = f32x16_load_n(table + half + i, n);
        f32x16_store_n(x + i, f32x16_sub(f32x16_mul(a, c), f32x16_mul(b, s)), n);
        f32x16_store_n(x + half + i, f32x16_fma(b, c, f32x16_mul(a, s)), n);
    }
}

/* table: cos of n_rot / 2 angles, then their sin. */
static void rope(float *x, const float *table, size_t n_rot, bool halves) {
    const size_t half = n_rot / 2;
    if (halves) {
        rope_halves(x, table, half);
        return;
    }
    for (size_t i = 0; i < half; i++) {
        const float a = x[2 * i], b = x[2 * i + 1], c = table[i], s = table[half + i];
        x[2 * i] = a * c - b * s;
        x[2 * i + 1] = a * s + b * c;
    }
}
