/* The engine under the sanitizers: many short steps with several threads, cancelled, copied, truncated, freed.
 * What the numbers must be is tested in Python; here they must be the same whatever the threads do.
 * Returns the number of faults; the sanitizers report the rest. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "small_model.h"

/* Puts sequence 1 away and takes it back: nothing may change. */
static int save_and_load(iq_context *c) {
    const uint32_t length = iq_seq_length(c, 1);
    const size_t bytes = (size_t)iq_seq_state_bytes(c, length);
    void *data = malloc(bytes + 1);
    int faults = !data || iq_seq_export(c, 1, length, data, bytes, NULL) != IQ_OK;
    faults += iq_seq_export(c, 1, length, data, bytes + 1, NULL) != IQ_ERR_ARGUMENT;
    faults += iq_seq_import(c, 1, length + 1, data, bytes, NULL) != IQ_ERR_ARGUMENT;
    faults += iq_seq_import(c, 1, length, data, bytes, NULL) != IQ_OK || iq_seq_length(c, 1) != length;
    free(data);
    return faults;
}

/* Makes room as a chat does: sequence 1 becomes a copy of a part of sequence 0. */
static int keep_short(iq_context *c) {
    int faults = save_and_load(c);
    if (iq_seq_length(c, 0) > 100) faults += iq_seq_truncate(c, 0, 70, NULL) != IQ_OK;
    if (iq_seq_length(c, 1) > 100) faults += iq_seq_copy(c, 0, 1, iq_seq_length(c, 0) / 2, NULL) != IQ_OK;
    return faults;
}

/* The logits of all steps, (N_STEP, N_VOCAB). */
static int run_history(const iq_program *program, uint32_t n_threads, float *logits) {
    const iq_context_params params = {5 * KV_BLOCK, MAX_TOKENS, 2, n_threads, TYPE_F32, 0};
    iq_context *context = NULL;
    iq_error error;
    int faults = iq_context_create(program, &params, &context, &error) != IQ_OK;
    for (uint32_t n = 0; n < N_STEP && !faults; n++) {
        int32_t token[MAX_TOKENS], seq[MAX_TOKENS];
        const iq_batch batch = make_batch(n, token, seq);
        faults += keep_short(context);
        faults += iq_step(context, &batch, logits + n * N_VOCAB, &error) != IQ_OK;
    }
    if (faults) fprintf(stderr, "engine: %u threads: %s\n", n_threads, error.text);
    iq_context_free(context);
    return faults;
}

static int test_threads_agree(const iq_program *program) {
    static float expected[N_STEP * N_VOCAB], logits[N_STEP * N_VOCAB];
    int faults = run_history(program, 1, expected);
    for (uint32_t n = 2; n <= 6; n += 2) {
        faults += run_history(program, n, logits);
        if (memcmp(expected, logits, sizeof logits) == 0) continue;
        fprintf(stderr, "engine: %u threads compute other logits than one\n", n);
        faults++;
    }
    return faults;
}

static void *cancel_often(void *context) {
    for (int i = 0; i < 20000; i++) iq_context_cancel(context);
    return NULL;
}

/* A cancelled step leaves no trace; one that was not is kept. */
static int test_cancel(const iq_program *program) {
    const iq_context_params params = {5 * KV_BLOCK, MAX_TOKENS, 2, 3, TYPE_F32, 0};
    iq_context *context = NULL;
    int faults = iq_context_create(program, &params, &context, NULL) != IQ_OK;
    pthread_t thread;
    if (faults || pthread_create(&thread, NULL, cancel_often, context) != 0) return 1;
    for (uint32_t n = 0; n < N_STEP; n++) {
        int32_t token[MAX_TOKENS], seq[MAX_TOKENS];
        float logits[N_VOCAB];
        const iq_batch batch = make_batch(n, token, seq);
        faults += keep_short(context);
        const uint32_t before = iq_seq_length(context, 0) + iq_seq_length(context, 1);
        const iq_status status = iq_step(context, &batch, logits, NULL);
        const uint32_t after = iq_seq_length(context, 0) + iq_seq_length(context, 1);
        faults += status != IQ_OK && status != IQ_ERR_CANCELLED;
        faults += after != before + (status == IQ_OK ? batch.n_tokens : 0);
    }
    pthread_join(thread, NULL);
    iq_context_free(context);
    if (faults) fprintf(stderr, "engine: %d faults around cancelled steps\n", faults);
    return faults;
}

/* Threads that start and stop, most of the time without having worked. */
static int test_short_lives(const iq_program *program) {
    int faults = 0;
    for (uint32_t n = 1; n < 30; n++) {
        const iq_context_params params = {KV_BLOCK, 1, 1, n % 7 + 1, TYPE_F32, 0};
        iq_context *context = NULL;
        const int32_t token = 1, seq = 0;
        float logits[N_VOCAB];
        faults += iq_context_create(program, &params, &context, NULL) != IQ_OK;
        if (n % 3 == 0)
            faults += iq_step(context, &(iq_batch){.n_tokens = 1, .token = &token, .seq = &seq}, logits, NULL) != IQ_OK;
        iq_context_free(context);
    }
    return faults;
}

int main(void) {
    static model m;
    iq_error error = {""};
    build_model(&m);
    iq_program *program = create_program(&m, &error);
    if (!program) {
        fprintf(stderr, "engine: %s\n", error.text);
        return 1;
    }
    const int faults = test_threads_agree(program) + test_cancel(program) + test_short_lives(program);
    iq_program_free(program);
    return faults;
}
