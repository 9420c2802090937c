#define _DEFAULT_SOURCE 1 /* clock_gettime in wait.h */
/* How fast this machine's memory can be read: the limit that decoding is measured against. */
#include "engine/thread_pool.h"
#include "engine/wait.h"

#include <stdatomic.h>

#define UNIT 64
#define PREFETCH_BYTES 2048 /* as the kernels do, or the limit would be lower than what they can reach */

typedef struct {
    const uint8_t *data;
    size_t units; /* whole units of 64 bytes */
    uint32_t n_chunks;
    int32_t left;   /* passes */
    uint64_t start; /* of the running pass, ns */
    uint64_t best;
    _Atomic uint64_t sum; /* keeps the reads from being optimised away */
} measurement;

/* Eight independent sums: vectorised, and never waiting for an addition. Prefetching past the end is harmless. */
static uint64_t sum_units(const uint8_t *p, size_t n) {
    uint64_t sums[UNIT / sizeof(uint64_t)] = {0}, total = 0;
    for (; n > 0; n--, p += UNIT) {
#if defined(__GNUC__)
        __builtin_prefetch(p + PREFETCH_BYTES);
#endif
        for (size_t i = 0; i < UNIT / sizeof(uint64_t); i++) sums[i] += iq_load_u64(p + i * sizeof(uint64_t));
    }
    for (size_t i = 0; i < UNIT / sizeof(uint64_t); i++) total += sums[i];
    return total;
}

static void read_chunk(void *user, uint32_t chunk, uint32_t thread) {
    measurement *m = user;
    const size_t first = m->units / m->n_chunks * chunk;
    const size_t end = chunk + 1 == m->n_chunks ? m->units : first + m->units / m->n_chunks;
    (void)thread;
    atomic_fetch_add_explicit(&m->sum, sum_units(m->data + first * UNIT, end - first), memory_order_relaxed);
}

static uint32_t next_pass(void *user, uint32_t thread) {
    measurement *m = user;
    const uint64_t now = iq_now_ns();
    (void)thread;
    if (m->start && now - m->start < m->best) m->best = now - m->start;
    m->start = now;
    return m->left-- > 0 ? m->n_chunks : 0;
}

iq_status iq_measure_read(const void *data, size_t bytes, int32_t n_threads, int32_t repeats, double *seconds,
                          iq_error *error) {
    if (!data || !seconds || bytes < UNIT || repeats < 1 || n_threads < 1 || n_threads > IQ_POOL_MAX_THREADS) {
        return iq_fail(error, IQ_ERR_ARGUMENT,
                       "iq_measure_read needs 64 bytes or more, 1 to %d threads and 1 or more repeats",
                       IQ_POOL_MAX_THREADS);
    }
    iq_thread_pool *pool;
    const iq_status status = iq_pool_create((uint32_t)n_threads, &pool, error);
    if (status != IQ_OK) return status;
    measurement m = {
        .data = data, .units = bytes / UNIT, .n_chunks = (uint32_t)n_threads, .left = repeats, .best = UINT64_MAX};
    const iq_pool_work work = {next_pass, read_chunk, &m};
    iq_pool_run(pool, &work);
    iq_pool_free(pool);
    *seconds = (double)m.best * 1e-9;
    return IQ_OK;
}
