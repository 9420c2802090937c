/* The opt-in guard of mapped files: a SIGBUS handler for faults inside them, and for nothing else.
 *
 * When another program cuts a mapped file short, or its disk fails, the next access raises SIGBUS and ends the process;
 * no check beforehand can close that window. The handler puts zeros where the file was and notes that it did: the step
 * ends, its caller asks iq_map_guard_broken and reports the file. Every other SIGBUS goes to whoever had it before.
 *
 * A signal handler can only find its data in static storage: the one mutable state of this library. */
#define _DEFAULT_SOURCE 1 /* MAP_ANONYMOUS, sigaction */
#include "base/status.h"

#if defined(_WIN32)

/* A mapped file cannot be shortened there. */
iq_status iq_map_guard_install(iq_error *error) { return iq_fail(error, IQ_ERR_UNSUPPORTED, "not needed on Windows"); }
int32_t iq_map_guard_watch(const void *data, size_t bytes) { return (void)data, (void)bytes, -1; }
int iq_map_guard_broken(int32_t slot) { return (void)slot, 0; }
void iq_map_guard_forget(int32_t slot) { (void)slot; }

#else

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

enum { N_SLOTS = 1024 }; /* mapped files at once; those beyond are not guarded */

typedef struct {
    atomic_uintptr_t start, end; /* whole pages; end is 0 while the slot is free */
    atomic_bool broken;
} map_slot;

static map_slot slots[N_SLOTS];
static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER; /* of whoever takes a slot; the handler needs none */
static struct sigaction previous;
static uintptr_t page_bytes; /* 0 until the handler is installed */

/* Zeros from the page of `address` to the end of its map: what lies behind a cut is cut, too. */
static bool cover(uintptr_t address) {
    for (size_t i = 0; i < N_SLOTS; i++) {
        const uintptr_t end = atomic_load(&slots[i].end), page = address & ~(page_bytes - 1);
        if (address >= end || address < atomic_load(&slots[i].start)) continue;
        atomic_store(&slots[i].broken, true);
        const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
        return mmap((void *)page, end - page, PROT_READ, flags, -1, 0) != MAP_FAILED;
    }
    return false;
}

static void hand_on(int number, siginfo_t *info, void *context) {
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(number, info, context);
    } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
        sigaction(number, &previous, NULL);    /* a fault comes again at once and ends as it would have; */
        if (info->si_code <= 0) raise(number); /* a signal that was sent is sent again */
    } else {
        previous.sa_handler(number);
    }
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    const int saved = errno;
    if (!cover((uintptr_t)info->si_addr)) hand_on(number, info, context);
    errno = saved;
}

iq_status iq_map_guard_install(iq_error *error) {
    iq_status status = IQ_OK;
    pthread_mutex_lock(&slots_lock);
    if (page_bytes == 0) {
        struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        const long bytes = sysconf(_SC_PAGESIZE);
        sigemptyset(&action.sa_mask);
        page_bytes = bytes > 0 ? (uintptr_t)bytes : 4096;
        if (sigaction(SIGBUS, &action, &previous) != 0) {
            page_bytes = 0;
            status = iq_fail(error, IQ_ERR_UNSUPPORTED, "the system refuses a handler for SIGBUS");
        }
    }
    pthread_mutex_unlock(&slots_lock);
    return status;
}

int32_t iq_map_guard_watch(const void *data, size_t bytes) {
    int32_t found = -1;
    pthread_mutex_lock(&slots_lock);
    for (int32_t i = 0; page_bytes != 0 && bytes > 0 && i < N_SLOTS; i++) {
        if (atomic_load(&slots[i].end) != 0) continue;
        atomic_store(&slots[i].broken, false);
        atomic_store(&slots[i].start, (uintptr_t)data & ~(page_bytes - 1));
        atomic_store(&slots[i].end, iq_round_up((uintptr_t)data + bytes, page_bytes));
        found = i;
        break;
    }
    pthread_mutex_unlock(&slots_lock);
    return found;
}

int iq_map_guard_broken(int32_t slot) { return slot >= 0 && slot < N_SLOTS && atomic_load(&slots[slot].broken); }

void iq_map_guard_forget(int32_t slot) {
    if (slot >= 0 && slot < N_SLOTS) atomic_store(&slots[slot].end, 0);
}

#endif
