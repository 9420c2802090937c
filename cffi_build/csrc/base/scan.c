#include "base/status.h"

#include <inttypes.h>

/* A string is its length (u64) and as many bytes. */
static bool string_fits(const uint8_t *data, uint64_t size, uint64_t at) {
    const uint64_t left = size - at;
    return left >= 8 && iq_load_u64(data + at) <= left - 8;
}

static uint64_t string_end(const uint8_t *data, uint64_t at) { return at + 8 + iq_load_u64(data + at); }

/* Walks first and writes after: a bad file changes nothing. */
iq_status iq_scan_strings(const void *data, uint64_t size, uint64_t offset, uint64_t count, uint64_t *offsets,
                          iq_error *error) {
    if (!data || !offsets) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "iq_scan_strings needs the file's bytes and room for the offsets");
    }
    if (offset > size) {
        return iq_fail(error, IQ_ERR_FORMAT, "the strings start past the end of the file, which has %" PRIu64 " bytes",
                       size);
    }
    uint64_t at = offset;
    for (uint64_t i = 0; i < count; i++) {
        if (!string_fits(data, size, at)) {
            return iq_fail(error, IQ_ERR_FORMAT,
                           "string %" PRIu64 " of %" PRIu64 ", at byte %" PRIu64 ", runs past the end (%" PRIu64
                           " bytes)",
                           i, count, at, size);
        }
        at = string_end(data, at);
    }
    offsets[0] = offset;
    for (uint64_t i = 0; i < count; i++) offsets[i + 1] = string_end(data, offsets[i]);
    return IQ_OK;
}
