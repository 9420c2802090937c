/* How a thread waits: all limits of spinning and sleeping in one place. */
#ifndef IQ_ENGINE_WAIT_H
#define IQ_ENGINE_WAIT_H

#include <sched.h>
#include <time.h>

#include "base/platform.h"

/* A waiting thread spins with pause instructions, then offers its core to others, then sleeps. */
#define IQ_WAIT_SPIN_NS 4000             /* longer than the wait at the end of most stages */
#define IQ_WAIT_YIELD_IN_STEP_NS 1000000 /* a stage is running: its end is near, sleeping would cost a wake-up */
#define IQ_WAIT_YIELD_IDLE_NS 200000 /* no step is running: time to choose the next token, then an idle engine sleeps */
#define IQ_WAIT_PAUSES 16            /* looks at the clock once per so many pauses */

IQ_INLINE void iq_cpu_pause(void) {
#if defined(IQ_X86_64)
    __builtin_ia32_pause();
#elif defined(IQ_AARCH64)
    __asm__ volatile("isb" ::: "memory"); /* some 30 cycles; `yield` is a no-op on most cores */
#endif
}

IQ_INLINE uint64_t iq_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
