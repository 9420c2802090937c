#if defined(__linux__)
/* The readers: round and round the pieces, ahead of the step. */
#include "engine/stream_state.h"

void iq_stream_give_back(iq_stream *s, iq_stream_piece *piece) {
    if (!piece->resident) s->slots[s->n_free++] = piece->room;
    atomic_store_explicit(&piece->state, IQ_ABSENT, memory_order_relaxed);
}

void iq_stream_claim(iq_stream *s, iq_stream_piece *piece) {
    if (!piece->resident) piece->room = s->slots[--s->n_free];
    piece->turn = s->turn;
    atomic_store_explicit(&piece->state, IQ_READING, memory_order_relaxed);
}

static void walk_on(iq_stream *s) {
    s->read_at++;
    if (s->read_at == s->open_to) s->open_to = IQ_NOWHERE;
    if (s->read_at == s->n_piece) s->read_at = 0;
}

/* The next piece of the walk that must be read; NULL: there is none, or it has to wait for its slot, or for a choice. */
static iq_stream_piece *claim_next(iq_stream *s) {
    for (uint32_t i = 0; i < s->n_piece && s->failure == IQ_OK; i++) {
        iq_stream_piece *piece = &s->pieces[s->read_at];
        const bool absent = iq_stream_state(piece) == IQ_ABSENT;
        if (piece->is_choice && s->open_to == IQ_NOWHERE) return NULL;
        const bool passed_by = piece->is_choice && !piece->chosen;
        if (!passed_by && !piece->resident && (!absent || s->n_free == 0)) return NULL;
        walk_on(s);
        if (passed_by || !absent) continue;
        iq_stream_claim(s, piece);
        return piece;
    }
    return NULL;
}

void iq_stream_fail(iq_stream *s, iq_status status, const iq_error *error) {
    s->failure = status;
    s->error = *error;
    pthread_cond_broadcast(&s->ready);
}

/* Reads a claimed piece, without the lock meanwhile. What was read for a walk that was given up is thrown away. */
void iq_stream_read(iq_stream *s, iq_stream_piece *piece) {
    iq_error error;
    pthread_mutex_unlock(&s->lock);
    const iq_status status =
        iq_read_range(piece->file, piece->offset, piece->data_bytes, piece->room, &s->n_read, &error);
    pthread_mutex_lock(&s->lock);
    const bool wanted = piece->resident || piece->turn == s->turn;
    if (status != IQ_OK || !wanted) {
        iq_stream_give_back(s, piece);
        if (status != IQ_OK && wanted) iq_stream_fail(s, status, &error);
        pthread_cond_broadcast(&s->work);
        return;
    }
    atomic_store_explicit(&piece->rows_left, piece->what.n_rows, memory_order_relaxed);
    atomic_store_explicit(&piece->state, IQ_READY, memory_order_release);
    pthread_cond_broadcast(&s->ready);
}

void *iq_stream_reader(void *stream) {
    iq_stream *s = stream;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        iq_stream_piece *piece = claim_next(s);
        if (piece) {
            iq_stream_read(s, piece);
        } else {
            pthread_cond_wait(&s->work, &s->lock);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

#else
typedef int iq_stream_reader_is_for_linux;
#endif
