/* Weights that are read from their files while they are used, because they are larger than memory.
 *
 * A step uses all weights in the same order every time, so what was used longest ago is needed next, and keeping what was
 * used last (as the page cache does) keeps nothing of use. Here a fixed share of the pieces is resident: read once and
 * kept. The others pass through a few slots. Reader threads walk round the pieces in the order of a step, across the
 * borders of stages and from the end of a step into the next, and put each piece that is absent into a free slot; the
 * matmul stage waits for it, and gives the slot back when all rows of the piece are used.
 *
 * No step can wait for ever: chunks are dealt out in the order of the pieces, so the earliest unfinished chunk is
 * always at work, what it waits for is the earliest piece not yet given back, and slots are filled in that order.
 *
 * Of experts only the chosen ones are read; the readers stop in front of them until the choice is made.
 */
#ifndef IQ_ENGINE_STREAM_H
#define IQ_ENGINE_STREAM_H

#include <stdatomic.h>

#include "engine/program.h"

/* What direct reads are aligned to in file and memory: a multiple of every disk's block. */
#define IQ_STREAM_ALIGN 4096

/* Most pieces of one matmul: its chunks are counted in 16 bits, and none reaches across two pieces. */
#define IQ_STREAM_MAX_PIECES 65535

/* The pieces of an op's weights: of each expert in turn, if it has experts. */
typedef struct {
    uint32_t first[IQ_OP_SLOTS]; /* of each weight */
    uint32_t step;               /* from one piece of a weight to its next: a gated matmul takes turns */
    uint32_t per_expert;         /* from one expert to the next */
    uint32_t n_rows;             /* of each piece but a matrix's last: IQ_ROW_UNIT times a power of two */
    uint32_t begin, end;         /* of all of them; begin == end: no matmul */
    uint32_t n_expert;           /* 0: none */
    uint32_t group_end;          /* experts: the end of all ops that go the ways of the same ROUTE */
    bool leads;                  /* experts: the first of these */
} iq_stream_op;

/* Cuts the matrices of all matmuls. Fills pieces (room for `capacity`; may be NULL) and ops (n_op of them; may be NULL);
 * returns the number of pieces. */
size_t iq_stream_cut(const iq_program *program, uint64_t piece_bytes, iq_piece *pieces, size_t capacity,
                     iq_stream_op *ops);

/* ---- reading: stream_read.c ------------------------------------------------------------------------------------- */

typedef struct {
    int descriptor;
    const char *name;
    _Atomic bool direct; /* past the page cache; false once the file system refused it */
} iq_read_file;

void iq_read_prepare(iq_read_file *file, const iq_stream_file *from);

/* Reads bytes [offset, offset + bytes) so that the first one lands at room + offset % IQ_STREAM_ALIGN. `room` is aligned
 * and has iq_read_room(bytes) bytes. Adds what came from the file to *n_read. */
iq_status iq_read_range(iq_read_file *file, uint64_t offset, size_t bytes, uint8_t *room, _Atomic uint64_t *n_read,
                        iq_error *error);

IQ_INLINE uint64_t iq_read_room(uint64_t bytes) {
    return (bytes + IQ_STREAM_ALIGN - 1) / IQ_STREAM_ALIGN * IQ_STREAM_ALIGN + IQ_STREAM_ALIGN;
}

/* ---- for the context that runs a step ----------------------------------------------------------------------------- */

iq_status iq_stream_enter(iq_stream *stream, iq_error *error); /* one at a time */
void iq_stream_leave(iq_stream *stream, bool completed);

/* Between stages: the op that is next to use its pieces. Anything but the one after the last begins reading anew. With
 * experts, those are used whose first_dealt[expert] is below the next one's: readers wait here for that. */
void iq_stream_expect(iq_stream *stream, uint32_t op, const uint32_t *first_dealt);
const iq_stream_op *iq_stream_op_at(const iq_stream *stream, uint32_t op);

/* The address of a row of an op's weight, or of an expert's matrix in it. Waits for its piece; NULL if the read failed or
 * *cancelled is set. */
const uint8_t *iq_stream_rows(iq_stream *stream, uint32_t op, uint32_t slot, uint32_t expert, uint32_t row,
                              const _Atomic bool *cancelled);

/* Tells that the op has used these rows. */
void iq_stream_done(iq_stream *stream, uint32_t op, uint32_t slot, uint32_t expert, uint32_t row, uint32_t n_rows);

/* One row of an embedding, read into `room`, which has `room_bytes` bytes; NULL if that failed. */
const uint8_t *iq_stream_row(iq_stream *stream, int32_t weight, uint32_t row, void *room, size_t room_bytes);

void iq_stream_wake(iq_stream *stream); /* lets those who wait look at *cancelled; any thread */

/* Why rows were refused; IQ_OK if no read failed. */
iq_status iq_stream_failure(iq_stream *stream, iq_error *error);

#endif
