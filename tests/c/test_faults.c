/* Every allocation and thread start of the core fails once: each call then returns IQ_ERR_MEMORY or IQ_ERR_THREAD, the
 * object it worked on is usable or gone, and nothing leaks.
 *
 * Linked with -Wl,--wrap= each of malloc, calloc, realloc, aligned_alloc, free, mmap, munmap, pthread_create. */
#define _GNU_SOURCE 1 /* memfd_create */
#include "base/fp16.h"
#include "iqrun.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_VOCAB = 8, N_EMBD = 32, N_CTX = 128, N_TOKENS = 4, NEVER = 1 << 30 };

/* ---- the failing allocator ------------------------------------------------------------------------------------- */

static int left = NEVER; /* calls that still succeed before one fails */
static int live;         /* allocations and maps not freed yet */
static int failed;       /* how many calls were made to fail */

static bool fails(void) {
    if (left-- > 0) return false;
    left = NEVER;
    failed++;
    return true;
}

static void *counted(void *p) {
    if (p) __atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
    return p;
}

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *p, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void *p);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *argument);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __wrap_free(void *p);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *argument);

void *__real_mmap(void *at, size_t bytes, int access, int flags, int file, off_t offset);
int __real_munmap(void *at, size_t bytes);
void *__wrap_mmap(void *at, size_t bytes, int access, int flags, int file, off_t offset);
int __wrap_munmap(void *at, size_t bytes);

void *__wrap_malloc(size_t bytes) { return fails() ? NULL : counted(__real_malloc(bytes)); }
void *__wrap_calloc(size_t count, size_t bytes) { return fails() ? NULL : counted(__real_calloc(count, bytes)); }
void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    return fails() ? NULL : counted(__real_aligned_alloc(alignment, bytes));
}
void *__wrap_realloc(void *p, size_t bytes) {
    if (fails()) return NULL;
    return p ? __real_realloc(p, bytes) : counted(__real_realloc(p, bytes));
}
void __wrap_free(void *p) {
    if (p) __atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
    __real_free(p);
}
void *__wrap_mmap(void *at, size_t bytes, int access, int flags, int file, off_t offset) {
    return fails() ? MAP_FAILED : counted(__real_mmap(at, bytes, access, flags, file, offset));
}
int __wrap_munmap(void *at, size_t bytes) {
    __atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
    return __real_munmap(at, bytes);
}
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *argument) {
    return fails() ? 11 : __real_pthread_create(thread, attr, start, argument);
}

/* ---- a small model ---------------------------------------------------------------------------------------------- */

static float weights[N_EMBD * N_EMBD];

typedef struct {
    int32_t kind, n, dst[IQ_OP_SLOTS], src[IQ_OP_SLOTS], weight[IQ_OP_SLOTS];
} short_op;

/* embed, q = k = v = W x, attention, select, logits */
static const short_op short_ops[] = {
    {IQ_OP_EMBED, 1, {0, -1, -1, -1}, {-1, -1, -1, -1}, {0, -1, -1, -1}},
    {IQ_OP_MATMUL, 3, {1, 2, 3, -1}, {0, -1, -1, -1}, {1, 1, 1, -1}},
    {IQ_OP_ATTENTION, 0, {4, -1, -1, -1}, {1, 2, 3, -1}, {-1, -1, -1, -1}},
    {IQ_OP_SELECT, 0, {5, -1, -1, -1}, {4, -1, -1, -1}, {-1, -1, -1, -1}},
    {IQ_OP_MATMUL, 1, {6, -1, -1, -1}, {5, -1, -1, -1}, {0, -1, -1, -1}},
};
enum { N_OP = sizeof short_ops / sizeof *short_ops };

static iq_op full_op(const short_op *from) {
    const bool attends = from->kind == IQ_OP_ATTENTION;
    iq_op op = {.kind = from->kind, .n = from->n, .layer = attends ? 0 : -1, .f = {attends ? 0.25f : 1.0f}};
    op.n_head = op.n_head_kv = attends ? 2 : 0;
    op.head_dim = attends ? N_EMBD / 2 : 0;
    memcpy(op.dst, from->dst, sizeof op.dst);
    memcpy(op.src, from->src, sizeof op.src);
    memcpy(op.weight, from->weight, sizeof op.weight);
    memset(op.bias, -1, sizeof op.bias);
    return op;
}

static iq_status make_program(iq_program **program, iq_error *error) {
    static const iq_weight matrices[] = {{weights, 0, N_VOCAB, N_EMBD, 0}, {weights, 0, N_EMBD, N_EMBD, 0}};
    static const iq_buffer buffers[] = {{N_EMBD, 0, 0}, {N_EMBD, 0, 0}, {N_EMBD, 0, 0}, {N_EMBD, 0, 0},
                                        {N_EMBD, 0, 0}, {N_EMBD, 1, 0}, {N_VOCAB, 1, 0}};
    iq_op ops[N_OP];
    for (size_t i = 0; i < N_OP; i++) ops[i] = full_op(&short_ops[i]);
    const iq_program_spec spec = {.ops = ops,
                                  .buffers = buffers,
                                  .weights = matrices,
                                  .n_op = N_OP,
                                  .n_buffer = 7,
                                  .n_weight = 2,
                                  .n_layer = 1,
                                  .n_vocab = N_VOCAB,
                                  .output = 6};
    const iq_kernels *kernels;
    const iq_status status = iq_kernels_find("portable", &kernels, error);
    return status == IQ_OK ? iq_program_create(&spec, kernels, program, error) : status;
}

/* A stream of the same weights out of a file. */
static iq_status make_stream(const iq_program *program, iq_stream **stream, iq_error *error) {
    static int file = -1;
    if (file < 0) {
        file = memfd_create("weights", 0);
        if (pwrite(file, weights, sizeof weights, 0) != (ssize_t)sizeof weights) return IQ_ERR_READ;
    }
    const iq_stream_file files[] = {{file, "weights"}};
    const iq_stream_source sources[2] = {{0, 0}, {0, 0}};
    const uint8_t resident[64] = {1, 0, 1};
    if (iq_stream_pieces(program, 1024, NULL, 0) > sizeof resident) return IQ_ERR_ARGUMENT;
    const iq_stream_spec spec = {.files = files,
                                 .sources = sources,
                                 .resident = resident,
                                 .piece_bytes = 1024,
                                 .n_file = 1,
                                 .n_slot = 2,
                                 .n_reader = 2};
    return iq_stream_create(program, &spec, stream, error);
}

static iq_status step(iq_context *context, float *output, iq_error *error) {
    const int32_t token[N_TOKENS] = {1, 2, 3, 4}, seq[N_TOKENS] = {0};
    const iq_batch batch = {.n_tokens = N_TOKENS, .token = token, .seq = seq};
    return iq_step(context, &batch, output, error);
}

/* Everything that allocates; stops at the first failure. */
static iq_status use_all(float *output, iq_error *error) {
    const iq_context_params params = {.n_ctx = N_CTX, .n_batch = N_TOKENS, .n_seq = 2, .n_threads = 3, .kv_type = 8};
    const iq_kernels *kernels;
    iq_program *program = NULL;
    iq_context *context = NULL;
    iq_stream *stream = NULL;
    iq_status status = make_program(&program, error);
    if (status == IQ_OK) status = iq_context_create(program, &params, &context, error);
    if (status == IQ_OK) status = step(context, output, error);
    if (status == IQ_OK) status = iq_seq_copy(context, 0, 1, 3, error);
    if (status == IQ_OK) status = iq_seq_truncate(context, 0, 1, error);
    if (status == IQ_OK) status = make_stream(program, &stream, error);
    if (status == IQ_OK) status = iq_context_use_stream(context, stream, error);
    if (status == IQ_OK) status = step(context, output, error);
    uint64_t freed;
    if (status == IQ_OK) status = iq_stream_shrink(stream, 1, &freed, error);
    if (status == IQ_OK) status = step(context, output, error);
    iq_context_free(context);
    iq_stream_free(stream);
    iq_program_free(program);
    if (status == IQ_OK) status = iq_kernels_find("portable", &kernels, error);
    if (status == IQ_OK) status = iq_kernels_self_test(kernels, error);
    if (status == IQ_OK) status = iq_matmul(kernels, 0, weights, 4, N_EMBD, weights, 2, output, error);
    double seconds;
    if (status == IQ_OK) status = iq_measure_read(weights, sizeof weights, 3, 1, &seconds, error);
    for (size_t i = 0; status == IQ_OK && i < iq_format_count(); i++) {
        uint8_t rows[4 * 256];
        static float x[256];
        for (int j = 0; j < 256; j++) x[j] = (float)(j % 7) - 3;
        if (iq_format_at(i)->can_encode) {
            status = iq_quantize_rows(iq_format_at(i)->id, x, 1, 256, NULL, IQ_EFFORT_FAST, rows, error);
        }
    }
    return status;
}

/* ---- the walk --------------------------------------------------------------------------------------------------- */

int main(void) {
    float expected[N_TOKENS * N_VOCAB], output[N_TOKENS * N_VOCAB];
    int failures = 0, n = 0;
    iq_error error = {""};
    for (size_t i = 0; i < N_EMBD * N_EMBD; i++) weights[i] = (float)(i % 13) / 16.0f - 0.4f;
    if (use_all(expected, &error) != IQ_OK) {
        printf("without faults: %s\n", error.text);
        return 1;
    }
    for (;; n++) {
        const int live_before = live;
        error.text[0] = '\0';
        failed = 0, left = n;
        const iq_status status = use_all(output, &error);
        left = NEVER;
        if (failed == 0) break; /* n calls are all there are */
        if ((status != IQ_ERR_MEMORY && status != IQ_ERR_THREAD) || !error.text[0]) {
            printf("FAILED fault %d: status %d, \"%s\"\n", n, (int)status, error.text);
            failures++;
        }
        if (live != live_before) {
            printf("FAILED fault %d: %d allocations leaked\n", n, live - live_before);
            failures++;
        }
    }
    if (use_all(output, &error) != IQ_OK || memcmp(output, expected, N_VOCAB * sizeof *output) != 0) failures++;
    printf("faults: %d, %s\n", n, failures ? "FAILED" : "ok");
    return failures || n < 5;
}
