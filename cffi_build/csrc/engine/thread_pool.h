/* Threads that work through stages of chunks.
 *
 * There is no barrier: a stage is done when its chunks are done, and whoever finishes the last one starts the next
 * stage. A thread that the operating system took off its core therefore delays the others only while it is inside a
 * chunk, which is what keeps twice as many threads as cores usable.
 */
#ifndef IQ_ENGINE_THREAD_POOL_H
#define IQ_ENGINE_THREAD_POOL_H

#include "base/status.h"

#define IQ_POOL_MAX_THREADS 512
#define IQ_POOL_MAX_CHUNKS 65535 /* per stage; a chunk number has 16 bits */

typedef struct {
    /* Does all serial work that comes next, prepares the next stage and returns its number of chunks; 0 = the end.
     * Called by one thread at a time, after everything before it is done and visible. */
    uint32_t (*next_stage)(void *user, uint32_t thread);
    void (*run_chunk)(void *user, uint32_t chunk, uint32_t thread);
    void *user;
} iq_pool_work;

typedef struct iq_thread_pool iq_thread_pool;

/* n_threads counts the caller of iq_pool_run: 1 starts no thread. */
iq_status iq_pool_create(uint32_t n_threads, iq_thread_pool **pool, iq_error *error);
void iq_pool_free(iq_thread_pool *pool); /* NULL is allowed */
size_t iq_pool_bytes(uint32_t n_threads);

/* Runs stages until next_stage returns 0; the caller works as thread 0. One call at a time. */
void iq_pool_run(iq_thread_pool *pool, const iq_pool_work *work);

#endif
