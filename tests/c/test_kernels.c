/* Kernel tables against the portable one, below the reach of Python: activations that quantize_x never makes (-128),
 * rows of any alignment ending at an unreadable page, rows and tokens in every small number, guarded outputs.
 *
 *   test_kernels [ISA ...]      default: every instruction set that runs here; exit code 0 = all agree
 */
#define _DEFAULT_SOURCE 1

#include "base/fp16.h"
#include "iqrun.h"
#include "kernel/kernels.h"
#include "kernel/tables.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_ROWS = 35, MOST_TOKENS = 20, MOST_BLOCKS = 6, GUARD = 8 };

static uint32_t random_state = 1;

static uint32_t next_random(void) {
    random_state = random_state * 1664525u + 1013904223u;
    return random_state >> 8;
}

/* Memory whose end is the start of a page that cannot be read. */
typedef struct {
    uint8_t *base, *end;
    size_t bytes;
} guarded;

static guarded guarded_new(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = iq_round_up(bytes, page);
    guarded g;
    g.bytes = body + page;
    g.base = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.base == MAP_FAILED || mprotect(g.base + body, page, PROT_NONE) != 0) {
        perror("mmap");
        exit(2);
    }
    g.end = g.base + body;
    return g;
}

static void guarded_free(guarded g) { munmap(g.base, g.bytes); }

/* ---- inputs ----------------------------------------------------------------------------------------------------- */

typedef enum { BYTES_RANDOM, BYTES_ZERO, BYTES_ONES, BYTES_KINDS } byte_kind;

/* Codes and scales of a kind; fields read as half floats get finite values: `hole` clears one exponent bit. */
static void fill_rows(uint8_t *rows, size_t n_rows, size_t row_bytes, const iq_format_info *info, byte_kind kind) {
    const uint8_t hole = next_random() % 2 ? 0x40 : 0x08;
    for (size_t i = 0; i < n_rows * row_bytes; i++) {
        const uint8_t byte = kind == BYTES_ZERO ? 0 : kind == BYTES_ONES ? 0xff : (uint8_t)next_random();
        rows[i] = byte & (uint8_t)~hole;
    }
    for (size_t r = 0; r < n_rows; r++) {
        const float scale = r % 2 ? -0.75f : 1.5f;
        const uint16_t half = iq_f32_to_f16(scale);
        if (info->row_meta_bytes == sizeof half) memcpy(rows + r * row_bytes, &half, sizeof half);
        if (info->row_meta_bytes == sizeof scale) memcpy(rows + r * row_bytes, &scale, sizeof scale);
    }
}

typedef enum { Q_RANDOM, Q_LEAST, Q_MOST, Q_ALTERNATING, Q_KINDS } q_kind;

static int8_t q_value(q_kind kind, size_t i) {
    switch (kind) {
    case Q_LEAST:
        return -128;
    case Q_MOST:
        return 127;
    case Q_ALTERNATING:
        return i % 3 ? 127 : -128;
    default:
        return (int8_t)(next_random() & 255);
    }
}

/* A consistent block: d, s and bias as quantize_x would derive them, q as the kind says. */
static void fill_block(iq_q8_block *b, q_kind kind) {
    for (size_t i = 0; i < IQ_SUPERBLOCK; i++) b->q[i] = q_value(kind, i);
    for (int slot = 0; slot < IQ_SLOTS; slot++) {
        const int lane = 4 * (slot % 4) + slot / 4;
        int32_t sum = 0;
        for (int i = 0; i < 16; i++) sum += b->q[16 * slot + i];
        b->d[lane] = 0.0078125f;
        b->s[lane] = b->d[lane] * (float)sum;
        b->bias[lane] = -128 * sum;
    }
}

/* ---- comparison ------------------------------------------------------------------------------------------------- */

static float row_magnitude(const iq_format *format, const uint8_t *row, size_t n_cols) {
    static float weights[MOST_BLOCKS * IQ_SUPERBLOCK];
    float largest = 0.0f;
    format->decode(row, n_cols, weights);
    for (size_t i = 0; i < n_cols; i++) largest = fmaxf(largest, fabsf(weights[i]));
    return largest;
}

typedef struct {
    const iq_format_kernels *kernels;
    const iq_format *format;
    size_t n_rows, n_cols, n_tokens, row_bytes;
    byte_kind bytes;
    q_kind q;
} test_case;

static void *aligned(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes) != 0) exit(2);
    return p;
}

static float *multiply(const test_case *c, const uint8_t *rows, const void *x, size_t x_stride, void *scratch,
                       bool add) {
    const size_t n = c->n_tokens * (c->n_rows + GUARD) + GUARD;
    float *y = aligned(n * sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = 12345.0f;
    const iq_matmul_task task = {.rows = rows,
                                 .row_bytes = c->row_bytes,
                                 .n_rows = c->n_rows,
                                 .n_cols = c->n_cols,
                                 .x = x,
                                 .x_stride = x_stride,
                                 .n_tokens = c->n_tokens,
                                 .y = y + GUARD,
                                 .y_stride = c->n_rows + GUARD,
                                 .scratch = scratch,
                                 .add = add};
    c->kernels->matmul(&task);
    return y;
}

/* Two bands of rows, and activations that are still in the scratch memory from the same product before: the same bits. */
static bool bands_agree(const test_case *c, const uint8_t *rows, const void *x, size_t x_stride, void *scratch,
                        const float *expected) {
    const size_t first = (c->n_rows + 1) / 2, stride = c->n_rows + GUARD, bytes = c->n_tokens * stride * sizeof(float);
    float *y = aligned(bytes);
    bool good = true;
    for (int packed = 0; packed < 2 && good; packed++) {
        memset(y, 0, bytes);
        const iq_matmul_task task = {.rows = rows,
                                     .row_bytes = c->row_bytes,
                                     .n_rows = first,
                                     .n_cols = c->n_cols,
                                     .x = x,
                                     .x_stride = x_stride,
                                     .n_tokens = c->n_tokens,
                                     .y = y,
                                     .y_stride = stride,
                                     .more_rows = rows + first * c->row_bytes,
                                     .more_y = y + first,
                                     .n_more = c->n_rows - first,
                                     .more_y_stride = stride,
                                     .scratch = scratch,
                                     .packed = packed};
        c->kernels->matmul(&task);
        for (size_t t = 0; t < c->n_tokens; t++) {
            good &= memcmp(y + t * stride, expected + GUARD + t * stride, c->n_rows * sizeof *y) == 0;
        }
    }
    if (!good) fprintf(stderr, "two bands of rows give other results than one\n");
    free(y);
    return good;
}

static bool guards_hold(const test_case *c, const float *y) {
    for (size_t t = 0; t <= c->n_tokens; t++) {
        for (size_t i = 0; i < GUARD; i++) {
            if (y[t * (c->n_rows + GUARD) + i] != 12345.0f) return false;
        }
    }
    return true;
}

/* Float sums differ in order only: a few units of 2^-24 of the sum of magnitudes. */
static bool results_agree(const test_case *c, const uint8_t *rows, const float *y, const float *expected, float base,
                          float x_most) {
    for (size_t r = 0; r < c->n_rows; r++) {
        const float magnitude =
            row_magnitude(c->format, rows + r * c->row_bytes, c->n_cols) * x_most * (float)c->n_cols;
        for (size_t t = 0; t < c->n_tokens; t++) {
            const size_t i = GUARD + t * (c->n_rows + GUARD) + r;
            if (!(fabsf(y[i] - base - expected[i]) <= 4e-6f * magnitude + 1e-6f * fabsf(base))) {
                fprintf(stderr, "row %zu token %zu: %g instead of %g (magnitude %g)\n", r, t, (double)(y[i] - base),
                        (double)expected[i], (double)magnitude);
                return false;
            }
        }
    }
    return true;
}

static bool run_case(const test_case *c, const iq_format_kernels *portable) {
    const size_t n_blocks = (c->n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK, bytes = c->n_rows * c->row_bytes;
    const bool q8 = portable->x_kind == IQ_X_Q8;
    const guarded g = guarded_new(bytes);
    uint8_t *rows = g.end - bytes; /* the last row ends at the unreadable page; any alignment */
    fill_rows(rows, c->n_rows, c->row_bytes, &c->format->info, c->bytes);
    const size_t x_stride = q8 ? n_blocks * sizeof(iq_q8_block) : c->n_cols * sizeof(float);
    uint8_t *x = aligned(c->n_tokens * x_stride);
    if (q8) {
        for (size_t i = 0; i < c->n_tokens * n_blocks; i++) fill_block((iq_q8_block *)x + i, c->q);
        for (size_t t = 0; t < c->n_tokens && c->n_cols % IQ_SUPERBLOCK; t++) { /* columns past the end */
            iq_q8_block *last = (iq_q8_block *)(x + t * x_stride) + n_blocks - 1;
            float zeros[IQ_SUPERBLOCK], *from = zeros;
            for (size_t i = 0; i < IQ_SUPERBLOCK; i++)
                zeros[i] = i < c->n_cols % IQ_SUPERBLOCK ? (float)(i % 7) - 3 : 0;
            iq_kernels_portable.quantize_x(from, IQ_SUPERBLOCK, portable->order, last);
        }
    } else {
        for (size_t i = 0; i < c->n_tokens * c->n_cols; i++)
            ((float *)x)[i] = (float)(next_random() % 255) / 128.0f - 1.0f;
    }
    void *scratch = aligned(IQ_SCRATCH_BYTES);
    test_case reference = *c;
    reference.kernels = portable;
    float *expected = multiply(&reference, rows, x, x_stride, scratch, false);
    float *y = multiply(c, rows, x, x_stride, scratch, false), *sum = multiply(c, rows, x, x_stride, scratch, true);
    const float x_most = q8 ? (c->n_cols % IQ_SUPERBLOCK ? 3.0f : 1.0f) : 1.0f;
    const bool good = guards_hold(c, y) && guards_hold(c, sum) && results_agree(c, rows, y, expected, 0.0f, x_most) &&
                      results_agree(c, rows, sum, expected, 12345.0f, x_most) &&
                      bands_agree(c, rows, x, x_stride, scratch, y);
    free(expected), free(y), free(sum), free(x), free(scratch);
    guarded_free(g);
    return good;
}

/* ---- the walk through all cases --------------------------------------------------------------------------------- */

static int failures;

static void check(const iq_kernels *kernels, const test_case *c) {
    const iq_format_kernels *portable = iq_format_kernels_find(&iq_kernels_portable, c->format->info.id);
    if (run_case(c, portable)) return;
    failures++;
    fprintf(stderr, "FAILED %s %s: %zu rows, %zu columns, %zu tokens, bytes %d, q %d\n", kernels->isa,
            c->format->info.name, c->n_rows, c->n_cols, c->n_tokens, (int)c->bytes, (int)c->q);
}

static void check_format(const iq_kernels *kernels, const iq_format *format) {
    static const size_t rows[] = {1, 2, 3, 16, 17, 35}, tokens[] = {1, 2, 3, 4, 5, 6, 8, 11, 16, 20};
    const size_t small_cols[] = {32, 96, 256, 288, 1056}, cols[] = {256, 512, 1280};
    const bool small = format->info.block_weights < IQ_SUPERBLOCK;
    const size_t n_cols = small ? 5 : 3;
    test_case c = {.kernels = iq_format_kernels_find(kernels, format->info.id), .format = format};
    if (!c.kernels) {
        fprintf(stderr, "FAILED %s has no kernel for %s\n", kernels->isa, format->info.name);
        failures++;
        return;
    }
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = 0; j < n_cols; j++) {
            for (size_t k = 0; k < 10; k++) {
                c.n_rows = rows[i], c.n_cols = small ? small_cols[j] : cols[j], c.n_tokens = tokens[k];
                if (c.n_rows * c.n_tokens * c.n_cols > 200000) continue; /* quick, also under emulation */
                c.row_bytes = (size_t)iq_row_bytes(format->info.id, c.n_cols);
                c.bytes = (byte_kind)((i + k) % BYTES_KINDS), c.q = (q_kind)((i + j + k) % Q_KINDS);
                check(kernels, &c);
            }
        }
    }
}

static void check_quantize_x(const iq_kernels *kernels) {
    static iq_q8_block expected[3], found[3];
    float x[3 * IQ_SUPERBLOCK];
    for (int pass = 0; pass < 400; pass++) {
        const size_t n = pass % 2 ? 3 * IQ_SUPERBLOCK : 1 + next_random() % (3 * IQ_SUPERBLOCK);
        for (size_t i = 0; i < n; i++) {
            const uint32_t bits = next_random() << 16 ^ next_random();
            x[i] = pass % 4 ? (float)(int)(bits % 511) * 0.5f - 127.5f : iq_bits_to_f32(bits); /* ties; any float */
        }
        for (int order = 0; order < IQ_ORDERS; order++) {
            memset(expected, 1, sizeof expected), memset(found, 1, sizeof found);
            iq_kernels_portable.quantize_x(x, n, (iq_slot_order)order, expected);
            kernels->quantize_x(x, n, (iq_slot_order)order, found);
            if (memcmp(expected, found, sizeof found) == 0) continue;
            failures++;
            fprintf(stderr, "FAILED %s quantize_x: %zu columns, order %d\n", kernels->isa, n, order);
        }
    }
}

static void check_table(const iq_kernels *kernels) {
    const int before = failures;
    iq_error error;
    check_quantize_x(kernels);
    for (size_t i = 0; i < iq_format_count(); i++) check_format(kernels, iq_format_row(iq_format_at(i)->id));
    if (iq_kernels_self_test(kernels, &error) != IQ_OK) {
        failures++;
        fprintf(stderr, "FAILED self test: %s\n", error.text);
    }
    printf("%s: %s\n", kernels->isa, failures == before ? "ok" : "FAILED");
}

int main(int argc, char **argv) {
    const char *isa;
    const iq_kernels *kernels;
    iq_error error;
    for (int i = 1; i < argc; i++) {
        if (iq_kernels_find(argv[i], &kernels, &error) != IQ_OK) {
            fprintf(stderr, "%s\n", error.text);
            return 2;
        }
        check_table(kernels);
    }
    for (size_t i = 0; argc == 1 && (isa = iq_isa_at(i)) != NULL; i++) {
        if (!iq_isa_runs_here(isa)) {
            printf("%s: not run, this machine lacks it\n", isa);
        } else if (iq_kernels_find(isa, &kernels, &error) == IQ_OK) {
            check_table(kernels);
        }
    }
    return failures ? 1 : 0;
}
