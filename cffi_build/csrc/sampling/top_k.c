/* The largest of many logits: most of what choosing a token costs. */
#include "base/platform.h"
#include "iqrun.h"

#include <math.h>

#define BLOCK 64 /* logits that are looked at together: nearly all blocks hold none of the k best ... */
#define PIECE 16 /* ... and of the others most pieces do not */

/* Whether place a comes behind place b: a smaller logit, or an equal one that stands later. */
IQ_INLINE bool behind(const float *logits, int64_t a, int64_t b) {
    return logits[a] < logits[b] || (logits[a] == logits[b] && a > b);
}

/* Puts `place` into heap[at], or below it where it belongs: nothing is behind its parent. */
static void sift_down(const float *logits, int64_t *heap, size_t n, size_t at, int64_t place) {
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && behind(logits, heap[child + 1], heap[child])) child++;
        if (!behind(logits, heap[child], place)) break;
        heap[at] = heap[child];
    }
    heap[at] = place;
}

/* False only if none of n logits is above `least`; true with a NaN. */
IQ_INLINE bool any_above(const float *logits, int n, float least) {
    int above = 0;
    for (int i = 0; i < n; i++) above |= !(logits[i] <= least);
    return above != 0;
}

/* The heap's first place is the last of the k best so far. Stops at a NaN and returns its place, else `end`. */
static size_t improve(const float *logits, size_t first, size_t end, int64_t *heap, size_t k) {
    float least = logits[heap[0]];
    for (size_t i = first; i < end; i++) {
        if (logits[i] <= least) continue;
        if (isnan(logits[i])) return i;
        sift_down(logits, heap, k, 0, (int64_t)i);
        least = logits[heap[0]];
    }
    return end;
}

/* The same for a block: of few pieces is there more to do than the first look. */
static size_t improve_block(const float *logits, size_t first, int64_t *heap, size_t k) {
    const size_t end = first + BLOCK;
    for (size_t i = first; i < end; i += PIECE) {
        if (!any_above(logits + i, PIECE, logits[heap[0]])) continue;
        const size_t stopped = improve(logits, i, i + PIECE, heap, k);
        if (stopped < i + PIECE) return stopped;
    }
    return end;
}

static void sort_heap(const float *logits, int64_t *heap, size_t n) {
    while (n-- > 1) {
        const int64_t last = heap[n];
        heap[n] = heap[0];
        sift_down(logits, heap, n, 0, last);
    }
}

static size_t only(size_t place, int64_t *places) {
    places[0] = (int64_t)place;
    return 1;
}

size_t iq_top_k(const float *logits, size_t n, size_t k, int64_t *places) {
    if (k > n) k = n;
    if (k == 0) return 0;
    for (size_t i = 0; i < k; i++) {
        if (isnan(logits[i])) return only(i, places);
        places[i] = (int64_t)i;
    }
    for (size_t i = k / 2; i-- > 0;) sift_down(logits, places, k, i, places[i]);
    size_t i = k, stopped;
    for (; i + BLOCK <= n; i += BLOCK) {
        if (!any_above(logits + i, BLOCK, logits[places[0]])) continue;
        if ((stopped = improve_block(logits, i, places, k)) < i + BLOCK) return only(stopped, places);
    }
    if ((stopped = improve(logits, i, n, places, k)) < n) return only(stopped, places);
    sort_heap(logits, places, k);
    return k;
}
