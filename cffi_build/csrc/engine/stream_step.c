#if defined(__linux__)
#define _DEFAULT_SOURCE 1 /* getpid, clock_gettime */
/* A step takes its weights from the stream. */
#include <unistd.h>

#include "engine/stream_state.h"
#include "engine/wait.h"

iq_status iq_stream_enter(iq_stream *s, iq_error *error) {
    if (s->owner != getpid()) {
        return iq_fail(error, IQ_ERR_UNSUPPORTED, "weights are not streamed in a forked process: load the model there");
    }
    if (atomic_exchange_explicit(&s->in_use, true, memory_order_acquire)) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "another context uses the weights' stream: run one step at a time");
    }
    pthread_mutex_lock(&s->lock);
    if (s->failure != IQ_OK) s->use_at = IQ_NOWHERE; /* try again */
    s->failure = IQ_OK;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    return IQ_OK;
}

void iq_stream_leave(iq_stream *s, bool completed) {
    if (!completed) s->use_at = IQ_NOWHERE; /* some pieces were not used up */
    atomic_store_explicit(&s->in_use, false, memory_order_release);
}

/* Lets go of all that was read ahead and walks on from `piece`. */
static void walk_from(iq_stream *s, uint32_t piece) {
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->n_piece; i++) {
        iq_stream_piece *p = &s->pieces[i];
        if (!p->resident && iq_stream_state(p) == IQ_READY) iq_stream_give_back(s, p);
    }
    s->turn++;
    s->read_at = piece;
    s->open_to = IQ_NOWHERE;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

/* Marks the pieces of the chosen experts, of this op and those that follow it on the same ways. */
static void choose(iq_stream *s, uint32_t op, const uint32_t *first_dealt) {
    const uint32_t end = s->ops[op].group_end;
    pthread_mutex_lock(&s->lock);
    for (; op < s->program->n_op && s->ops[op].end <= end; op++) {
        const iq_stream_op *pieces = &s->ops[op];
        for (uint32_t i = pieces->begin; i < pieces->end && pieces->n_expert > 0; i++) {
            const uint32_t expert = (i - pieces->begin) / pieces->per_expert;
            s->pieces[i].chosen = first_dealt[expert] < first_dealt[expert + 1];
        }
    }
    s->open_to = end;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

void iq_stream_expect(iq_stream *s, uint32_t op, const uint32_t *first_dealt) {
    const iq_stream_op *pieces = &s->ops[op];
    const bool anew = pieces->begin != s->use_at;
    if (anew) walk_from(s, pieces->begin);
    if (pieces->n_expert > 0 && (anew || pieces->leads)) choose(s, op, first_dealt);
    if (pieces->begin == 0) iq_eviction_start(&s->eviction, iq_now_ns(), iq_stream_bytes_read(s));
    s->use_at = pieces->end % s->n_piece;
    if (s->use_at == 0) iq_eviction_end(&s->eviction, iq_now_ns(), iq_stream_bytes_read(s));
}

const iq_stream_op *iq_stream_op_at(const iq_stream *s, uint32_t op) { return &s->ops[op]; }

static iq_stream_piece *piece_of(iq_stream *s, uint32_t op, uint32_t slot, uint32_t expert, uint32_t row) {
    const iq_stream_op *cut = &s->ops[op];
    return &s->pieces[cut->first[slot] + expert * cut->per_expert + row / cut->n_rows * cut->step];
}

static const uint8_t *address_of(const iq_stream *s, const iq_stream_piece *piece, uint32_t expert, uint32_t row) {
    const iq_program_weight *w = &s->program->weights[piece->what.weight];
    const size_t first = piece->what.first_row - expert * w->n_rows;
    return piece->room + piece->offset % IQ_STREAM_ALIGN + (row - first) * w->row_bytes;
}

static bool wait_for(iq_stream *s, iq_stream_piece *piece, const _Atomic bool *cancelled) {
    pthread_mutex_lock(&s->lock);
    bool ready;
    while (!(ready = atomic_load_explicit(&piece->state, memory_order_acquire) == IQ_READY) && s->failure == IQ_OK &&
           !atomic_load_explicit(cancelled, memory_order_relaxed)) {
        pthread_cond_wait(&s->ready, &s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return ready;
}

const uint8_t *iq_stream_rows(iq_stream *s, uint32_t op, uint32_t slot, uint32_t expert, uint32_t row,
                              const _Atomic bool *cancelled) {
    iq_stream_piece *piece = piece_of(s, op, slot, expert, row);
    const bool ready = atomic_load_explicit(&piece->state, memory_order_acquire) == IQ_READY;
    if (!ready && !wait_for(s, piece, cancelled)) return NULL;
    return address_of(s, piece, expert, row);
}

void iq_stream_done(iq_stream *s, uint32_t op, uint32_t slot, uint32_t expert, uint32_t row, uint32_t n_rows) {
    iq_stream_piece *piece = piece_of(s, op, slot, expert, row);
    if (piece->resident) return;
    const size_t row_bytes = s->program->weights[piece->what.weight].row_bytes;
    if (s->eviction.evicts) iq_evict(address_of(s, piece, expert, row), n_rows * row_bytes);
    if (atomic_fetch_sub_explicit(&piece->rows_left, n_rows, memory_order_acq_rel) != n_rows) return;
    pthread_mutex_lock(&s->lock);
    iq_stream_give_back(s, piece);
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

const uint8_t *iq_stream_row(iq_stream *s, int32_t weight, uint32_t row, void *room, size_t room_bytes) {
    const size_t bytes = s->program->weights[weight].row_bytes;
    const uint64_t offset = s->sources[weight].offset + (uint64_t)row * bytes;
    uint8_t *aligned = (uint8_t *)iq_round_up((uintptr_t)room, IQ_STREAM_ALIGN);
    iq_error error;
    iq_status status = IQ_ERR_READ;
    if (aligned + iq_read_room(bytes) <= (uint8_t *)room + room_bytes) {
        status = iq_read_range(&s->files[s->sources[weight].file], offset, bytes, aligned, &s->n_read, &error);
    } else {
        iq_fail(&error, status, "a row of an embedding has %zu bytes: too many to be streamed", bytes);
    }
    if (status == IQ_OK) return aligned + offset % IQ_STREAM_ALIGN;
    pthread_mutex_lock(&s->lock);
    iq_stream_fail(s, status, &error);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void iq_stream_wake(iq_stream *s) {
    if (s->owner != getpid()) return; /* nobody waits in a child process, and the lock may be shut for ever */
    pthread_mutex_lock(&s->lock);
    pthread_cond_broadcast(&s->ready);
    pthread_mutex_unlock(&s->lock);
}

iq_status iq_stream_failure(iq_stream *s, iq_error *error) {
    pthread_mutex_lock(&s->lock);
    const iq_status status = s->failure;
    if (status != IQ_OK && error) *error = s->error;
    pthread_mutex_unlock(&s->lock);
    return status;
}

#else
typedef int iq_stream_step_is_for_linux;
#endif
