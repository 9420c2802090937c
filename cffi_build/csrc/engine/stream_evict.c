#include "engine/stream_evict.h"

#include <math.h>

#if defined(IQ_X86_64)
#include <emmintrin.h>
#endif

void iq_eviction_prepare(iq_eviction *e) {
    *e = (iq_eviction){.rate = {INFINITY, INFINITY}}; /* what was not tried yet is worth a trial */
}

void iq_eviction_start(iq_eviction *e, uint64_t now_ns, uint64_t n_read) {
    e->start_ns = now_ns;
    e->start_bytes = n_read;
}

void iq_eviction_end(iq_eviction *e, uint64_t now_ns, uint64_t n_read) {
    if (now_ns <= e->start_ns) return;
    e->rate[e->evicts] = (double)(n_read - e->start_bytes) * 1e9 / (double)(now_ns - e->start_ns);
    const bool better = e->rate[true] > e->rate[false];
    e->evicts = ++e->n_step % IQ_EVICT_TRIAL == 0 ? !better : better;
}

void iq_evict(const void *data, size_t bytes) {
#if defined(IQ_X86_64)
    const uint8_t *first = data;
    const size_t line = 64;
    for (size_t i = 0; i < bytes; i += line) _mm_clflush(first + i);
    if (bytes > 0) _mm_clflush(first + bytes - 1);
#else
    (void)data, (void)bytes;
#endif
}
