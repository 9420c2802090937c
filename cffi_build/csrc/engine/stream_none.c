/* Systems without streaming: it is refused in one sentence, and nothing else is ever called. */
#if !defined(__linux__)
#include "engine/stream.h"

iq_status iq_stream_create(const iq_program *program, const iq_stream_spec *spec, iq_stream **stream, iq_error *error) {
    (void)program, (void)spec, (void)stream;
    return iq_fail(error, IQ_ERR_UNSUPPORTED,
                   "models larger than memory run on Linux only: use a smaller type, or load without a memory limit");
}

void iq_stream_free(iq_stream *stream) { (void)stream; }

iq_status iq_stream_load(iq_stream *stream, uint64_t max_bytes, uint64_t *left, iq_error *error) {
    (void)max_bytes, (void)left;
    return iq_stream_enter(stream, error);
}

iq_status iq_stream_shrink(iq_stream *stream, uint64_t bytes, uint64_t *freed, iq_error *error) {
    (void)bytes, (void)freed;
    return iq_stream_enter(stream, error);
}

uint64_t iq_stream_bytes_read(const iq_stream *stream) { return (void)stream, 0; }

iq_status iq_stream_enter(iq_stream *stream, iq_error *error) {
    (void)stream;
    return iq_fail(error, IQ_ERR_UNSUPPORTED, "there are no streams on this system");
}

void iq_stream_leave(iq_stream *stream, bool completed) { (void)stream, (void)completed; }
void iq_stream_expect(iq_stream *stream, uint32_t op, const uint32_t *first_dealt) {
    (void)stream, (void)op, (void)first_dealt;
}

const iq_stream_op *iq_stream_op_at(const iq_stream *stream, uint32_t op) { return (void)stream, (void)op, NULL; }

const uint8_t *iq_stream_rows(iq_stream *stream, uint32_t op, uint32_t slot, uint32_t expert, uint32_t row,
                              const _Atomic bool *cancelled) {
    return (void)stream, (void)op, (void)slot, (void)expert, (void)row, (void)cancelled, NULL;
}

void iq_stream_done(iq_stream *stream, uint32_t op, uint32_t slot, uint32_t expert, uint32_t row, uint32_t n_rows) {
    (void)stream, (void)op, (void)slot, (void)expert, (void)row, (void)n_rows;
}

const uint8_t *iq_stream_row(iq_stream *stream, int32_t weight, uint32_t row, void *room, size_t room_bytes) {
    return (void)stream, (void)weight, (void)row, (void)room, (void)room_bytes, NULL;
}

void iq_stream_wake(iq_stream *stream) { (void)stream; }
iq_status iq_stream_failure(iq_stream *stream, iq_error *error) { return (void)stream, (void)error, IQ_OK; }

#else
typedef int iq_stream_none_is_for_other_systems;
#endif
