/* Whether used weights leave the caches before others are read to where they lie.
 *
 * The disk of a virtual machine is often a thread of its host that copies. On a core that shares its cache with ours it
 * copies fastest over lines that are still there. From any other core each must first be taken out of our cache, and
 * lines that are in no cache are overwritten 1.4 times as fast. Which it is changes every few seconds and nobody tells,
 * so steps are timed both ways, and the faster one is kept until the next trial. Where a disk does not copy, the trials
 * cost the time of evicting and no more.
 */
#ifndef IQ_ENGINE_STREAM_EVICT_H
#define IQ_ENGINE_STREAM_EVICT_H

#include "base/platform.h"
#include "iqrun.h"

#define IQ_EVICT_TRIAL 32 /* one step of so many goes the other way, to see whether it is the faster one by now */

typedef struct {
    double rate[2]; /* bytes per second of the last step in which lines stayed, and in which they were evicted */
    uint64_t start_ns, start_bytes;
    uint32_t n_step;
    bool evicts; /* in the running step */
} iq_eviction;

void iq_eviction_prepare(iq_eviction *eviction);

/* Around a step: the time, and what was read from the files so far. A start without an end does not count. */
void iq_eviction_start(iq_eviction *eviction, uint64_t now_ns, uint64_t n_read);
void iq_eviction_end(iq_eviction *eviction, uint64_t now_ns, uint64_t n_read);

#endif
