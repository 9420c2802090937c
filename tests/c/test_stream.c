/* Streamed weights under the sanitizers: the logits are those of weights in memory, whatever is resident, however many
 * threads compute or read, and around cancelled steps, failed reads and streams that are freed while they read.
 * Returns the number of faults; the sanitizers report the rest. */
#define _GNU_SOURCE 1 /* O_DIRECT */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/stream_evict.h"
#include "small_model.h"

enum { ODD_START = 4096 + 20, MAX_PIECES = 64, PIECE_BYTES = 1 };

typedef struct {
    int descriptor;
    uint64_t bytes;
    iq_program *program;
    iq_stream_source sources[64];
    iq_piece pieces[MAX_PIECES];
    size_t n_piece;
} world;

/* A file that holds the weights one after the other, at addresses that are multiples of nothing much. */
static int write_weights(world *w, const model *m) {
    char path[] = "test_stream.XXXXXX";
    w->descriptor = mkstemp(path);
    if (w->descriptor < 0) return 1;
    unlink(path);
    w->bytes = ODD_START;
    for (uint32_t i = 0; i < m->n_weight; i++) {
        const size_t bytes = m->weights[i].n_rows * m->weights[i].n_cols * sizeof(float);
        w->sources[i] = (iq_stream_source){0, w->bytes};
        if (pwrite(w->descriptor, m->weights[i].data, bytes, (off_t)w->bytes) != (ssize_t)bytes) return 1;
        w->bytes += bytes;
    }
    fsync(w->descriptor);
    return fcntl(w->descriptor, F_SETFL, O_RDWR | O_DIRECT) != 0 && fcntl(w->descriptor, F_SETFL, O_RDWR) != 0;
}

/* Every kept-th piece is resident; 0: none. */
static iq_status open_stream(const world *w, uint32_t kept, uint32_t n_slot, uint32_t n_reader, iq_stream **stream,
                             iq_error *error) {
    uint8_t resident[MAX_PIECES] = {0};
    for (size_t i = 0; kept && i < w->n_piece; i++) resident[i] = i % kept == 0;
    const iq_stream_file file = {w->descriptor, "weights"};
    const iq_stream_spec spec = {.files = &file,
                                 .sources = w->sources,
                                 .resident = resident,
                                 .piece_bytes = PIECE_BYTES,
                                 .n_file = 1,
                                 .n_slot = n_slot,
                                 .n_reader = n_reader};
    return iq_stream_create(w->program, &spec, stream, error);
}

static iq_context *open_context(const world *w, uint32_t n_threads, iq_stream *stream) {
    iq_context_params params;
    memset(&params, 0, sizeof params);
    params.n_ctx = 5 * KV_BLOCK, params.n_batch = MAX_TOKENS, params.n_seq = 2, params.n_threads = n_threads;
    params.kv_type = TYPE_F32;
    iq_context *context = NULL;
    if (iq_context_create(w->program, &params, &context, NULL) != IQ_OK) return NULL;
    if (stream && iq_context_use_stream(context, stream, NULL) != IQ_OK) return NULL;
    return context;
}

static iq_status step(iq_context *context, uint32_t n, float *logits, iq_error *error) {
    int32_t token[MAX_TOKENS], seq[MAX_TOKENS];
    const iq_batch batch = make_batch(n, token, seq);
    for (int32_t i = 0; i < 2; i++) {
        if (iq_seq_length(context, i) > 100) iq_seq_truncate(context, i, 70, NULL);
    }
    return iq_step(context, &batch, logits, error);
}

static int run_history(iq_context *context, float *logits) {
    iq_error error = {""};
    int faults = context == NULL;
    for (uint32_t n = 0; n < N_STEP && !faults; n++) faults += step(context, n, logits + n * N_VOCAB, &error) != IQ_OK;
    if (faults) fprintf(stderr, "stream: a step failed: %s\n", error.text);
    return faults;
}

static int test_same_logits(const world *w) {
    static float expected[N_STEP * N_VOCAB], logits[N_STEP * N_VOCAB];
    iq_context *context = open_context(w, 2, NULL);
    int faults = run_history(context, expected);
    iq_context_free(context);
    for (uint32_t kept = 0; kept < 4; kept++) {
        iq_stream *stream = NULL;
        uint64_t left = 1;
        faults += open_stream(w, kept, 2 + kept, 1 + kept % 3, &stream, NULL) != IQ_OK;
        if (kept % 2) faults += iq_stream_load(stream, 1 << 30, &left, NULL) != IQ_OK || left != 0;
        context = open_context(w, 1 + kept, stream);
        faults += run_history(context, logits);
        iq_context_free(context);
        iq_stream_free(stream);
        if (memcmp(expected, logits, sizeof logits) == 0) continue;
        fprintf(stderr, "stream: with every %u-th piece resident the logits differ\n", kept);
        faults++;
    }
    return faults;
}

/* Two contexts take turns in one stream; each computes what it computes alone. */
static int test_shared(const world *w) {
    iq_stream *stream = NULL;
    int faults = open_stream(w, 2, 3, 2, &stream, NULL) != IQ_OK;
    iq_context *contexts[3] = {open_context(w, 1, NULL), open_context(w, 2, stream), open_context(w, 3, stream)};
    for (uint32_t n = 0; n < 12; n++) {
        float logits[3][N_VOCAB];
        for (int i = 0; i < 3; i++) faults += step(contexts[i], n, logits[i], NULL) != IQ_OK;
        for (int i = 1; i < 3; i++) faults += memcmp(logits[0], logits[i], sizeof logits[0]) != 0;
    }
    for (int i = 0; i < 3; i++) iq_context_free(contexts[i]);
    iq_stream_free(stream);
    if (faults) fprintf(stderr, "stream: %d faults with two contexts\n", faults);
    return faults;
}

static void *cancel_often(void *context) {
    for (int i = 0; i < 3000; i++) iq_context_cancel(context);
    return NULL;
}

/* A cancelled step leaves no trace; the next one finds its pieces. */
static int test_cancel(const world *w) {
    iq_stream *stream = NULL;
    int faults = open_stream(w, 3, 4, 2, &stream, NULL) != IQ_OK;
    iq_context *context = open_context(w, 3, stream), *other = open_context(w, 1, NULL);
    pthread_t thread;
    if (!context || pthread_create(&thread, NULL, cancel_often, context) != 0) return 1;
    for (uint32_t n = 0; n < N_STEP; n++) {
        float logits[N_VOCAB], expected[N_VOCAB];
        const iq_status status = step(context, n, logits, NULL);
        faults += status != IQ_OK && status != IQ_ERR_CANCELLED;
        if (status != IQ_OK) continue;
        faults += step(other, n, expected, NULL) != IQ_OK || memcmp(logits, expected, sizeof logits) != 0;
    }
    pthread_join(thread, NULL);
    iq_context_free(context);
    iq_context_free(other);
    iq_stream_free(stream);
    if (faults) fprintf(stderr, "stream: %d faults around cancelled steps\n", faults);
    return faults;
}

/* The file is cut under a running stream: a sentence, not a crash; when it is whole again, so is the answer. */
static int test_failed_read(const world *w, const model *m) {
    iq_stream *stream = NULL;
    iq_error error = {""};
    float logits[N_VOCAB], expected[N_VOCAB];
    int faults = open_stream(w, 0, 2, 2, &stream, NULL) != IQ_OK;
    iq_context *context = open_context(w, 2, stream), *other = open_context(w, 1, NULL);
    const uint32_t last = m->n_weight - 1;
    faults += step(context, 1, logits, NULL) != IQ_OK || step(other, 1, expected, NULL) != IQ_OK;
    faults += ftruncate(w->descriptor, (off_t)w->sources[last].offset + 100) != 0;
    for (int i = 0; i < 3; i++) faults += step(context, 2, logits, &error) != IQ_ERR_READ;
    faults += strstr(error.text, "weights: cannot read it at byte") == NULL;
    const size_t bytes = m->weights[last].n_rows * m->weights[last].n_cols * sizeof(float);
    const int flags = fcntl(w->descriptor, F_GETFL);
    fcntl(w->descriptor, F_SETFL, O_RDWR);
    faults += pwrite(w->descriptor, m->weights[last].data, bytes, (off_t)w->sources[last].offset) != (ssize_t)bytes;
    fcntl(w->descriptor, F_SETFL, flags);
    faults += step(context, 2, logits, &error) != IQ_OK || step(other, 2, expected, NULL) != IQ_OK;
    faults += memcmp(logits, expected, sizeof logits) != 0;
    iq_context_free(context);
    iq_context_free(other);
    iq_stream_free(stream);
    if (faults) fprintf(stderr, "stream: %d faults around a file that was cut: %s\n", faults, error.text);
    return faults;
}

/* Streams that are freed while they read, most of them unused; and in a child process, where they are of no use. */
static int test_short_lives(const world *w) {
    int faults = 0;
    for (uint32_t n = 0; n < 20; n++) {
        iq_stream *stream = NULL;
        float logits[N_VOCAB];
        faults += open_stream(w, n % 4, 2 + n % 5, 1 + n % 3, &stream, NULL) != IQ_OK;
        iq_context *context = n % 3 == 0 ? open_context(w, 1 + n % 2, stream) : NULL;
        if (context) faults += step(context, n, logits, NULL) != IQ_OK;
        const pid_t child = n == 6 ? fork() : -1;
        if (child == 0) {
            const int refused = step(context, 1, logits, NULL) == IQ_ERR_UNSUPPORTED;
            iq_context_free(context);
            iq_stream_free(stream);
            _exit(refused ? 0 : 1);
        }
        int status = 0;
        if (child > 0) faults += waitpid(child, &status, 0) != child || status != 0;
        iq_context_free(context);
        iq_stream_free(stream);
    }
    if (faults) fprintf(stderr, "stream: %d faults in short lives\n", faults);
    return faults;
}

/* Resident pieces are given up between steps, some, then all; the logits stay. */
static int test_shrink(const world *w) {
    iq_stream *stream = NULL;
    int faults = open_stream(w, 1, 3, 2, &stream, NULL) != IQ_OK;
    iq_context *context = open_context(w, 2, stream), *other = open_context(w, 1, NULL);
    uint64_t left = 1, freed = 0;
    faults += iq_stream_load(stream, 1 << 30, &left, NULL) != IQ_OK || left != 0;
    for (uint32_t n = 0; n < 8; n++) {
        float logits[N_VOCAB], expected[N_VOCAB];
        faults += iq_stream_shrink(stream, n == 7 ? 1 << 30 : 30000, &freed, NULL) != IQ_OK;
        faults += n < 7 && freed < 30000;
        faults += step(context, n, logits, NULL) != IQ_OK || step(other, n, expected, NULL) != IQ_OK;
        faults += memcmp(logits, expected, sizeof logits) != 0;
    }
    faults += iq_stream_shrink(stream, 1, &freed, NULL) != IQ_OK || freed != 0;
    iq_context_free(context);
    iq_context_free(other);
    iq_stream_free(stream);
    if (faults) fprintf(stderr, "stream: %d faults while pieces were given up\n", faults);
    return faults;
}

static int test_refusals(world *w) {
    iq_stream *stream = NULL;
    iq_error error;
    int faults = open_stream(w, 0, 1, 1, &stream, &error) != IQ_ERR_ARGUMENT;
    w->sources[2].file = 1; /* a matrix, see build_model */
    faults += open_stream(w, 0, 2, 1, &stream, &error) != IQ_OK;
    iq_stream_free(stream);
    w->sources[2].file = 0;
    w->sources[3].file = 7;
    faults += open_stream(w, 0, 2, 1, &stream, &error) != IQ_ERR_ARGUMENT;
    w->sources[3].file = 0;
    if (faults) fprintf(stderr, "stream: %d faults in what is refused\n", faults);
    return faults;
}

/* Steps of 200 MB from a disk whose host moves it to another cache and back: in all they take nearly as long as the
 * better way each time would. The rates are measured ones (GB/s, which is bytes per ns). */
static int test_eviction(void) {
    const double rates[2][2] = {{2.7, 2.35}, {1.6, 2.35}}; /* beside us, elsewhere: lines stay, are evicted */
    const uint64_t bytes = 200000000;
    uint64_t now = 1, n_read = 0;
    double best = 0;
    iq_eviction eviction;
    iq_eviction_prepare(&eviction);
    for (int i = 0; i < 1000; i++) {
        const double *rate = rates[i / 90 % 2];
        if (i % 100 == 0) iq_eviction_start(&eviction, now - 1, n_read); /* of a step that ends nowhere */
        iq_eviction_start(&eviction, now, n_read);
        now += (uint64_t)((double)bytes / rate[eviction.evicts]);
        n_read += bytes;
        best += (double)bytes / (rate[0] > rate[1] ? rate[0] : rate[1]);
        iq_eviction_end(&eviction, now, n_read);
    }
    if ((double)now < 1.05 * best) return 0;
    fprintf(stderr, "stream: steps take %.3f times as long as in the better way\n", (double)now / best);
    return 1;
}

int main(void) {
    static model m;
    static world w;
    iq_error error = {""};
    build_model(&m);
    w.program = create_program(&m, &error);
    if (!w.program || write_weights(&w, &m) != 0) {
        fprintf(stderr, "stream: no program or no file: %s\n", error.text);
        return 1;
    }
    w.n_piece = iq_stream_pieces(w.program, PIECE_BYTES, w.pieces, MAX_PIECES);
    const int faults = test_same_logits(&w) + test_shared(&w) + test_cancel(&w) + test_failed_read(&w, &m) +
                       test_short_lives(&w) + test_shrink(&w) + test_refusals(&w) +
                       test_eviction();
    iq_program_free(w.program);
    close(w.descriptor);
    return faults;
}
