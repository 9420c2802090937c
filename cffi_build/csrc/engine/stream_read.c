/* Reading a range of a file past the page cache. */
#if defined(__linux__)
#define _GNU_SOURCE 1 /* O_DIRECT */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "engine/stream.h"

void iq_read_prepare(iq_read_file *file, const iq_stream_file *from) {
    file->descriptor = from->descriptor;
    file->name = from->name;
    const int flags = fcntl(file->descriptor, F_GETFL);
    atomic_init(&file->direct, flags != -1 && (flags & O_DIRECT) != 0);
    posix_fadvise(file->descriptor, 0, 0, POSIX_FADV_RANDOM); /* no reading ahead of what we ask for */
}

/* Some file systems take the flag and then refuse the reads: from now on through the page cache. */
static bool give_up_direct(iq_read_file *file) {
    if (!atomic_load(&file->direct)) return false;
    const int flags = fcntl(file->descriptor, F_GETFL);
    if (flags == -1 || fcntl(file->descriptor, F_SETFL, flags & ~O_DIRECT) == -1) return false;
    atomic_store(&file->direct, false);
    return true;
}

static iq_status failed_at(const iq_read_file *file, uint64_t at, const char *why, iq_error *error) {
    return iq_fail(error, IQ_ERR_READ, "%s: cannot read it at byte %llu: %s", file->name, (unsigned long long)at, why);
}

iq_status iq_read_range(iq_read_file *file, uint64_t offset, size_t bytes, uint8_t *room, _Atomic uint64_t *n_read,
                        iq_error *error) {
    const uint64_t start = offset / IQ_STREAM_ALIGN * IQ_STREAM_ALIGN, needed = offset + bytes - start;
    const uint64_t whole = iq_round_up(needed, IQ_STREAM_ALIGN);
    uint64_t got = 0;
    while (got < needed) {
        const ssize_t n = pread(file->descriptor, room + got, whole - got, (off_t)(start + got));
        if (n < 0 && (errno == EINTR || (errno == EINVAL && give_up_direct(file)))) continue;
        if (n < 0) return failed_at(file, start + got, strerror(errno), error);
        got += (uint64_t)n;
        atomic_fetch_add_explicit(n_read, (uint64_t)n, memory_order_relaxed);
        if (got < needed && (n == 0 || got % IQ_STREAM_ALIGN != 0)) {
            return failed_at(file, start + got, "the file ends there; was it cut while it was in use?", error);
        }
    }
    if (!atomic_load_explicit(&file->direct, memory_order_relaxed)) {
        posix_fadvise(file->descriptor, (off_t)start, (off_t)whole, POSIX_FADV_DONTNEED);
    }
    return IQ_OK;
}

#else
typedef int iq_stream_read_is_for_linux;
#endif
