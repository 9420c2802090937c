/* What a stream is made of: for the files of it only. */
#ifndef IQ_ENGINE_STREAM_STATE_H
#define IQ_ENGINE_STREAM_STATE_H

#include <pthread.h>
#include <sys/types.h>

#include "engine/stream.h"
#include "engine/stream_evict.h"

#define IQ_NOWHERE UINT32_MAX /* of a place in the walk */

enum { IQ_ABSENT, IQ_READING, IQ_READY };

typedef struct {
    iq_piece what;
    iq_read_file *file;
    uint64_t offset;
    size_t data_bytes;
    uint8_t *room; /* while not IQ_ABSENT; a resident piece's own */
    bool resident;
    bool is_choice, chosen;     /* an expert's; whether it was chosen in the running step */
    uint32_t turn;              /* in which it was claimed */
    _Atomic uint32_t state;     /* changed under the lock */
    _Atomic uint32_t rows_left; /* still to be used by the running step */
} iq_stream_piece;

struct iq_stream {
    const iq_program *program;
    iq_memory memory;
    iq_read_file *files;
    iq_stream_source *sources; /* per weight */
    iq_stream_op *ops;
    iq_stream_piece *pieces;
    uint32_t n_piece, n_file, n_slot;
    uint8_t *arena; /* resident pieces, then slots; mapped, so that it is aligned and a forked child has none of it */
    size_t arena_bytes;
    uint32_t use_at; /* the piece that the running step uses next, as far as is known */
    iq_eviction eviction;
    _Atomic bool in_use;
    _Atomic uint64_t n_read;
    pthread_t *readers;
    uint32_t n_reader, n_started;
    pid_t owner;

    pthread_mutex_t lock; /* over all below */
    pthread_cond_t ready; /* a piece is, or a read failed, or somebody wants waiters to look up */
    pthread_cond_t work;  /* for the readers */
    uint8_t **slots;      /* free ones */
    uint32_t n_free;
    uint32_t read_at; /* where the readers are in their walk */
    uint32_t open_to; /* up to this piece experts are chosen; IQ_NOWHERE: the readers wait in front of them */
    uint32_t turn;    /* how often the walk began anew */
    bool stop;
    iq_status failure; /* of the last read; no reading before the next step clears it */
    iq_error error;
};

/* ---- stream_reader.c: with the lock held, which a read lets go of meanwhile --------------------------------------- */

void *iq_stream_reader(void *stream); /* a reader's main function; takes the lock itself */
void iq_stream_claim(iq_stream *stream, iq_stream_piece *piece);
void iq_stream_read(iq_stream *stream, iq_stream_piece *piece); /* a claimed one */
void iq_stream_give_back(iq_stream *stream, iq_stream_piece *piece);
void iq_stream_fail(iq_stream *stream, iq_status status, const iq_error *error);

IQ_INLINE uint32_t iq_stream_state(const iq_stream_piece *piece) {
    return atomic_load_explicit(&piece->state, memory_order_relaxed);
}

#endif
