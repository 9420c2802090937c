#define _DEFAULT_SOURCE 1 /* clock_gettime, sched_yield under -std=c11 */
#include "engine/thread_pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/aligned.h"
#include "engine/thread_start.h"
#include "engine/wait.h"

/* The chunks of a stage are cut into one contiguous range per thread, so that each thread streams neighbouring rows;
 * a thread whose range is empty helps the others. A range is one word:
 *
 *     63 ... 32  stage number: a thread that looked at an older stage can never claim from this one
 *     31 ... 16  next chunk
 *     15 ...  0  end
 */
typedef struct {
    alignas(64) _Atomic uint64_t word;
} chunk_range;

typedef struct {
    iq_thread_pool *pool;
    pthread_t thread;
    uint32_t index;
} worker;

struct iq_thread_pool {
    alignas(64) _Atomic uint32_t epoch; /* grows whenever there is something new to do */
    _Atomic bool running, stop;
    _Atomic int32_t n_sleeping;
    alignas(64) _Atomic uint32_t n_done; /* chunks of the stage that are done */
    alignas(64) uint32_t n_chunks;       /* of the stage; written between stages only, as are the next two */
    uint32_t stage;
    iq_pool_work work;
    uint32_t n_threads, n_started;
    pid_t owner; /* a child after fork() has no workers: it works alone and must not wait for them */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    chunk_range *ranges;
    worker *workers;
};

static void wake_sleepers(iq_thread_pool *pool) {
    atomic_fetch_add(&pool->epoch, 1);
    if (atomic_load(&pool->n_sleeping) == 0) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

/* Called by the one thread between two stages. After the last range is stored others may finish this stage and start
 * the next, so nothing that belongs to a stage may be touched behind that. */
static void publish_stage(iq_thread_pool *pool, uint32_t n_chunks) {
    const uint32_t n = pool->n_threads;
    pool->n_chunks = n_chunks;
    const uint64_t stage = (uint64_t)++pool->stage << 32;
    atomic_store_explicit(&pool->n_done, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t first = (uint64_t)n_chunks * i / n, end = (uint64_t)n_chunks * (i + 1) / n;
        atomic_store_explicit(&pool->ranges[i].word, stage | first << 16 | end, memory_order_release);
    }
    wake_sleepers(pool);
}

static void start_next_stage(iq_thread_pool *pool, uint32_t thread) {
    const uint32_t n_chunks = pool->work.next_stage(pool->work.user, thread);
    if (n_chunks > 0) {
        publish_stage(pool, n_chunks);
    } else {
        atomic_store(&pool->running, false);
        wake_sleepers(pool);
    }
}

static bool claim_from(chunk_range *range, uint32_t *chunk) {
    uint64_t word = atomic_load_explicit(&range->word, memory_order_relaxed);
    while ((word >> 16 & 0xffff) < (word & 0xffff)) {
        if (atomic_compare_exchange_weak_explicit(&range->word, &word, word + 0x10000, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *chunk = (uint32_t)(word >> 16 & 0xffff);
            return true;
        }
    }
    return false;
}

static bool claim(iq_thread_pool *pool, uint32_t thread, uint32_t *chunk) {
    const uint32_t n = pool->n_threads;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t at = thread + i < n ? thread + i : thread + i - n;
        if (claim_from(&pool->ranges[at], chunk)) return true;
    }
    return false;
}

static void work_while_any(iq_thread_pool *pool, uint32_t thread) {
    uint32_t chunk;
    while (claim(pool, thread, &chunk)) {
        const uint32_t n_chunks = pool->n_chunks; /* ours until the chunk is counted as done */
        pool->work.run_chunk(pool->work.user, chunk, thread);
        if (atomic_fetch_add_explicit(&pool->n_done, 1, memory_order_acq_rel) + 1 == n_chunks) {
            start_next_stage(pool, thread);
        }
    }
}

static void sleep_until_changed(iq_thread_pool *pool, uint32_t seen) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->n_sleeping, 1);
    while (atomic_load(&pool->epoch) == seen) pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->n_sleeping, 1);
    pthread_mutex_unlock(&pool->lock);
}

static bool changed(iq_thread_pool *pool, uint32_t seen) {
    return atomic_load_explicit(&pool->epoch, memory_order_acquire) != seen;
}

static void wait_until_changed(iq_thread_pool *pool, uint32_t seen) {
    const uint64_t start = iq_now_ns();
    while (iq_now_ns() - start < IQ_WAIT_SPIN_NS) {
        for (int i = 0; i < IQ_WAIT_PAUSES; i++) {
            if (changed(pool, seen)) return;
            iq_cpu_pause();
        }
    }
    for (;;) {
        const bool running = atomic_load_explicit(&pool->running, memory_order_relaxed);
        if (iq_now_ns() - start > (running ? IQ_WAIT_YIELD_IN_STEP_NS : IQ_WAIT_YIELD_IDLE_NS)) break;
        if (changed(pool, seen)) return;
        sched_yield();
    }
    sleep_until_changed(pool, seen);
}

static void *worker_main(void *argument) {
    const worker *self = argument;
    iq_thread_pool *pool = self->pool;
    for (;;) {
        const uint32_t seen = atomic_load_explicit(&pool->epoch, memory_order_acquire);
        if (atomic_load_explicit(&pool->stop, memory_order_acquire)) return NULL;
        work_while_any(pool, self->index);
        wait_until_changed(pool, seen);
    }
}

static void run_alone(iq_thread_pool *pool) {
    uint32_t n_chunks;
    while ((n_chunks = pool->work.next_stage(pool->work.user, 0)) > 0) {
        for (uint32_t i = 0; i < n_chunks; i++) pool->work.run_chunk(pool->work.user, i, 0);
    }
}

void iq_pool_run(iq_thread_pool *pool, const iq_pool_work *work) {
    pool->work = *work;
    if (pool->n_threads == 1 || pool->owner != getpid()) {
        run_alone(pool);
        return;
    }
    atomic_store(&pool->running, true);
    start_next_stage(pool, 0);
    for (;;) {
        const uint32_t seen = atomic_load_explicit(&pool->epoch, memory_order_acquire);
        if (!atomic_load_explicit(&pool->running, memory_order_acquire)) return;
        work_while_any(pool, 0);
        if (!atomic_load_explicit(&pool->running, memory_order_acquire)) return;
        wait_until_changed(pool, seen);
    }
}

static iq_status start_workers(iq_thread_pool *pool, iq_error *error) {
    for (uint32_t i = 1; i < pool->n_threads; i++) {
        worker *w = &pool->workers[i];
        *w = (worker){.pool = pool, .index = i};
        if (iq_thread_start(&w->thread, worker_main, w) != 0) {
            return iq_fail(error, IQ_ERR_THREAD, "the system refused thread %u of %u: use fewer threads", i + 1,
                           pool->n_threads);
        }
        pool->n_started++;
    }
    return IQ_OK;
}

/* Threads of its parent do not exist in a child process: only the memory is left to give back. */
static void stop_workers(iq_thread_pool *pool) {
    if (pool->owner != getpid()) return;
    atomic_store(&pool->stop, true);
    wake_sleepers(pool);
    for (uint32_t i = 0; i < pool->n_started; i++) pthread_join(pool->workers[i + 1].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
}

void iq_pool_free(iq_thread_pool *pool) {
    if (!pool) return;
    stop_workers(pool);
    iq_aligned_free(pool->ranges);
    iq_aligned_free(pool->workers);
    iq_aligned_free(pool);
}

size_t iq_pool_bytes(uint32_t n_threads) {
    return sizeof(iq_thread_pool) + n_threads * (sizeof(chunk_range) + iq_round_up(sizeof(worker), 64));
}

static iq_thread_pool *allocate_pool(uint32_t n_threads) {
    iq_thread_pool *pool = iq_aligned_alloc(sizeof *pool);
    if (!pool) return NULL;
    memset(pool, 0, sizeof *pool);
    pool->ranges = iq_aligned_alloc(n_threads * sizeof *pool->ranges);
    pool->workers = iq_aligned_alloc(n_threads * iq_round_up(sizeof *pool->workers, 64));
    if (pool->ranges && pool->workers) return pool;
    iq_aligned_free(pool->ranges);
    iq_aligned_free(pool->workers);
    iq_aligned_free(pool);
    return NULL;
}

iq_status iq_pool_create(uint32_t n_threads, iq_thread_pool **out, iq_error *error) {
    iq_thread_pool *pool = allocate_pool(n_threads);
    if (!pool) return iq_fail(error, IQ_ERR_MEMORY, "no memory for a pool of %u threads", n_threads);
    pool->n_threads = n_threads;
    pool->owner = getpid();
    for (uint32_t i = 0; i < n_threads; i++) atomic_init(&pool->ranges[i].word, 0);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    const iq_status status = start_workers(pool, error);
    if (status != IQ_OK) {
        iq_pool_free(pool);
        return status;
    }
    *out = pool;
    return IQ_OK;
}
