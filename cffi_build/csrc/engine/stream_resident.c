#if defined(__linux__)
#define _DEFAULT_SOURCE 1 /* madvise */
/* Resident pieces: read before they are needed, or given up. */
#include <sys/mman.h>

#include "engine/stream_state.h"

static iq_stream_piece *absent_resident(iq_stream *s, uint64_t *left) {
    iq_stream_piece *found = NULL;
    *left = 0;
    for (uint32_t i = 0; i < s->n_piece; i++) {
        iq_stream_piece *piece = &s->pieces[i];
        const uint32_t state = iq_stream_state(piece);
        if (!piece->resident || state == IQ_READY) continue;
        *left += piece->data_bytes;
        if (!found && state == IQ_ABSENT) found = piece;
    }
    return found;
}

static void load(iq_stream *s, uint64_t max_bytes, uint64_t *left) {
    for (uint64_t done = 0; s->failure == IQ_OK;) {
        iq_stream_piece *piece = absent_resident(s, left);
        if (*left == 0 || done >= max_bytes) return;
        if (piece) {
            iq_stream_claim(s, piece);
            done += piece->data_bytes;
            iq_stream_read(s, piece);
        } else { /* the readers have the last ones in hand */
            pthread_cond_wait(&s->ready, &s->lock);
        }
    }
}

iq_status iq_stream_load(iq_stream *s, uint64_t max_bytes, uint64_t *left, iq_error *error) {
    const iq_status status = iq_stream_enter(s, error);
    if (status != IQ_OK) return status;
    pthread_mutex_lock(&s->lock);
    load(s, max_bytes, left);
    pthread_mutex_unlock(&s->lock);
    iq_stream_leave(s, true);
    return iq_stream_failure(s, error);
}

uint64_t iq_stream_bytes_read(const iq_stream *s) { return atomic_load_explicit(&s->n_read, memory_order_relaxed); }

static uint64_t give_up(iq_stream *s, bool choices, uint64_t bytes) {
    uint64_t freed = 0;
    for (uint32_t i = s->n_piece; i-- > 0 && freed < bytes;) {
        iq_stream_piece *piece = &s->pieces[i];
        if (!piece->resident || piece->is_choice != choices || iq_stream_state(piece) == IQ_READING) continue;
        madvise(piece->room, piece->what.bytes, MADV_DONTNEED);
        atomic_store_explicit(&piece->state, IQ_ABSENT, memory_order_relaxed);
        piece->resident = false;
        freed += piece->what.bytes;
    }
    return freed;
}

iq_status iq_stream_shrink(iq_stream *s, uint64_t bytes, uint64_t *freed, iq_error *error) {
    const iq_status status = iq_stream_enter(s, error);
    if (status != IQ_OK) return status;
    pthread_mutex_lock(&s->lock);
    *freed = give_up(s, true, bytes); /* from the end of the arena: whole huge pages become free */
    if (*freed < bytes) *freed += give_up(s, false, bytes - *freed);
    pthread_mutex_unlock(&s->lock);
    iq_stream_leave(s, false); /* the readers may be past a piece that is now absent */
    return IQ_OK;
}

#else
typedef int iq_stream_resident_is_for_linux;
#endif
