#if defined(__linux__)
#define _GNU_SOURCE 1 /* MAP_ANONYMOUS, MADV_DONTFORK */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/stream_state.h"
#include "engine/thread_start.h"

static iq_status check_weight(const iq_program *p, const iq_stream_spec *spec, int32_t weight, iq_error *error) {
    const iq_stream_source *source = &spec->sources[weight];
    if (source->file < 0 || (uint32_t)source->file >= spec->n_file) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "weight %d is in no file: it cannot be streamed", weight);
    }
    const iq_program_weight *w = &p->weights[weight];
    if (w->n_rows <= UINT32_MAX / (w->n_expert + 1)) return IQ_OK;
    return iq_fail(error, IQ_ERR_UNSUPPORTED, "weight %d has %zu rows: too many to be streamed", weight, w->n_rows);
}

static iq_status check_spec(const iq_program *p, const iq_stream_spec *spec, iq_error *error) {
    if (!p || !spec || !spec->files || !spec->sources || !spec->resident || spec->n_slot < 2 || spec->n_reader < 1) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "a stream needs a program, files, 2 slots or more and a reader");
    }
    for (uint32_t i = 0; i < p->n_op; i++) {
        const iq_op *op = &p->ops[i];
        const bool reads = iq_op_is_matmul(op->kind) || op->kind == IQ_OP_EMBED;
        const int n = op->kind == IQ_OP_EMBED ? 1 : op->n;
        for (int j = 0; reads && j < n; j++) {
            const iq_status status = check_weight(p, spec, op->weight[j], error);
            if (status != IQ_OK) return status;
        }
    }
    return IQ_OK;
}

static bool take_tables(iq_stream *s, const iq_stream_spec *spec) {
    iq_memory *m = &s->memory;
    s->files = iq_memory_take(m, s->n_file, sizeof *s->files);
    s->sources = iq_memory_take(m, s->program->n_weight, sizeof *s->sources);
    s->ops = iq_memory_take(m, s->program->n_op, sizeof *s->ops);
    s->pieces = iq_memory_take_zeroed(m, s->n_piece, sizeof *s->pieces);
    s->slots = iq_memory_take(m, s->n_slot, sizeof *s->slots);
    s->readers = iq_memory_take(m, spec->n_reader, sizeof *s->readers);
    return !m->failed;
}

static iq_status cut_pieces(iq_stream *s, const iq_stream_spec *spec, iq_error *error) {
    iq_piece *cut = malloc((s->n_piece + 1) * sizeof *cut);
    if (!cut) return iq_fail(error, IQ_ERR_MEMORY, "no memory for %u pieces of weights", s->n_piece);
    iq_stream_cut(s->program, spec->piece_bytes, cut, s->n_piece, s->ops);
    uint32_t most = 0;
    for (uint32_t i = 0; i < s->program->n_op; i++) {
        if (s->ops[i].end - s->ops[i].begin > most) most = s->ops[i].end - s->ops[i].begin;
    }
    if (most > IQ_STREAM_MAX_PIECES) {
        free(cut);
        return iq_fail(error, IQ_ERR_UNSUPPORTED, "a matmul of %u pieces is too large to be streamed: cut larger ones",
                       most);
    }
    for (uint32_t i = 0; i < s->n_piece; i++) {
        const iq_stream_source *source = &spec->sources[cut[i].weight];
        const size_t row_bytes = s->program->weights[cut[i].weight].row_bytes;
        iq_stream_piece *piece = &s->pieces[i];
        piece->what = cut[i];
        piece->file = &s->files[source->file];
        piece->offset = source->offset + cut[i].first_row * (uint64_t)row_bytes;
        piece->data_bytes = cut[i].n_rows * row_bytes;
        piece->resident = spec->resident[i] != 0;
        piece->is_choice = s->program->weights[cut[i].weight].n_expert > 0;
    }
    free(cut);
    return IQ_OK;
}

/* Gives resident pieces their rooms, those of experts or the others; returns where the last one ends. */
static uint8_t *place_resident(iq_stream *s, bool choices, uint8_t *at) {
    for (uint32_t i = 0; i < s->n_piece; i++) {
        iq_stream_piece *piece = &s->pieces[i];
        if (!piece->resident || piece->is_choice != choices) continue;
        piece->room = at;
        at += piece->what.bytes;
    }
    return at;
}

/* Pages of the arena take memory when they are first read into. Direct reads into huge pages are nearly twice as fast: each
 * is one address for the disk instead of hundreds. */
static iq_status map_arena(iq_stream *s, iq_error *error) {
    uint64_t resident = 0, largest = 0;
    for (uint32_t i = 0; i < s->n_piece; i++) {
        const uint64_t bytes = s->pieces[i].what.bytes;
        if (s->pieces[i].resident) resident += bytes;
        if (bytes > largest) largest = bytes; /* any piece may be given up later */
    }
    resident = iq_round_up(resident, IQ_HUGE_PAGE);
    const uint64_t slots = iq_round_up(s->n_slot * largest, IQ_HUGE_PAGE);
    s->arena_bytes = resident + slots + IQ_HUGE_PAGE;
    s->arena = mmap(NULL, s->arena_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->arena == MAP_FAILED) {
        s->arena = NULL;
        return iq_fail(error, IQ_ERR_MEMORY, "no memory for %.0f MB of weights", (double)s->arena_bytes * 1e-6);
    }
    madvise(s->arena, s->arena_bytes, MADV_DONTFORK);
    uint8_t *const first = (uint8_t *)iq_round_up((uintptr_t)s->arena, IQ_HUGE_PAGE);
    iq_wish_huge_pages(first, resident + slots);
    uint8_t *at = place_resident(s, false, first);
    place_resident(s, true, at); /* what is given up first, at the end */
    for (at = first + resident; s->n_free < s->n_slot; at += largest) s->slots[s->n_free++] = at;
    return IQ_OK;
}

static iq_status start_readers(iq_stream *s, iq_error *error) {
    for (; s->n_started < s->n_reader; s->n_started++) {
        if (iq_thread_start(&s->readers[s->n_started], iq_stream_reader, s) == 0) continue;
        return iq_fail(error, IQ_ERR_THREAD, "the system refused a thread that reads weights");
    }
    return IQ_OK;
}

static iq_status build(iq_stream *s, const iq_stream_spec *spec, iq_error *error) {
    if (!take_tables(s, spec)) return iq_fail(error, IQ_ERR_MEMORY, "no memory for %u pieces of weights", s->n_piece);
    for (uint32_t i = 0; i < s->n_file; i++) iq_read_prepare(&s->files[i], &spec->files[i]);
    memcpy(s->sources, spec->sources, s->program->n_weight * sizeof *s->sources);
    iq_status status = cut_pieces(s, spec, error);
    if (status == IQ_OK) status = map_arena(s, error);
    if (status == IQ_OK) status = start_readers(s, error);
    return status;
}

iq_status iq_stream_create(const iq_program *program, const iq_stream_spec *spec, iq_stream **stream, iq_error *error) {
    if (!stream) return iq_fail(error, IQ_ERR_ARGUMENT, "no place for the stream was given");
    iq_status status = check_spec(program, spec, error);
    if (status != IQ_OK) return status;
    iq_stream *s = calloc(1, sizeof *s);
    if (!s) return iq_fail(error, IQ_ERR_MEMORY, "no memory for a stream");
    s->program = program;
    s->n_file = spec->n_file;
    s->n_slot = spec->n_slot;
    s->n_reader = spec->n_reader;
    s->n_piece = (uint32_t)iq_stream_cut(program, spec->piece_bytes, NULL, 0, NULL);
    s->open_to = IQ_NOWHERE;
    iq_eviction_prepare(&s->eviction);
    s->owner = getpid();
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->ready, NULL);
    pthread_cond_init(&s->work, NULL);
    status = build(s, spec, error);
    if (status != IQ_OK) {
        iq_stream_free(s);
        return status;
    }
    *stream = s;
    return IQ_OK;
}

/* A child process has neither the readers nor the arena, whose addresses may be in other use there. */
static void stop_readers(iq_stream *s) {
    if (s->owner != getpid()) return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < s->n_started; i++) pthread_join(s->readers[i], NULL);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->ready);
    pthread_mutex_destroy(&s->lock);
    if (s->arena) munmap(s->arena, s->arena_bytes);
}

void iq_stream_free(iq_stream *stream) {
    if (!stream) return;
    stop_readers(stream);
    iq_memory_free(&stream->memory);
    free(stream);
}

#else
typedef int iq_stream_is_for_linux;
#endif
