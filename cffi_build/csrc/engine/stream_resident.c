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

static uint32_t common_divisor(uint32_t a, uint32_t b) { return b == 0 ? a : common_divisor(b, a % b); }

/* A step by which one comes to every number below n, the first ones far from each other. */
static uint32_t wide_step(uint32_t n) {
    uint32_t step = (uint32_t)(n * 0.618) + 1;
    while (common_divisor(step, n) != 1) step++;
    return step;
}

static uint64_t give_up(iq_stream *s, uint64_t bytes) {
    const uint32_t n = s->n_piece, step = n > 0 ? wide_step(n) : 0;
    uint64_t freed = 0;
    for (uint32_t i = 0, at = 0; i < n && freed < bytes; i++, at = (uint32_t)(((uint64_t)at + step) % n)) {
        iq_stream_piece *piece = &s->pieces[at];
        if (!piece->resident || iq_stream_state(piece) == IQ_READING) continue;
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
    *freed = give_up(s, bytes);
    pthread_mutex_unlock(&s->lock);
    iq_stream_leave(s, false); /* the readers may be past a piece that is now absent */
    return IQ_OK;
}

#else
typedef int iq_stream_resident_is_for_linux;
#endif
