/* The largest of many logits: most of what choosing a token costs.
 *
 * Logits differ from token to token, so that no processor foresees a branch that looks at them: few shall. A bound is
 * found first, which hardly more than k logits reach; only these are sorted. */
#include "base/platform.h"
#include "iqrun.h"

#include <math.h>

#define N_GROUPS 256       /* logits i, i + N_GROUPS, ... are a group: their largest ones are found side by side */
#define BOUND_LOGITS 32768 /* to find the bound among: more would have left the cache when they are looked at again */
#define BOUND_STEPS 10     /* each halves the range in which the bound lies */
#define BLOCK 64           /* logits that are looked at together: most of a large vocabulary hold none of the k best */

typedef struct {
    uint64_t *keys; /* best first */
    size_t n, k;    /* how many there are, and shall be */
    float least;    /* only a logit above it may be one of the k best */
} best_so_far;

/* The larger the better: by the logit, of equal ones by standing earlier. */
IQ_INLINE uint64_t key_of(float logit, size_t place) {
    uint32_t bits;
    logit += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &logit, sizeof bits);
    bits ^= (bits >> 31) ? 0xffffffffu : 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~place;
}

IQ_INLINE size_t place_of(uint64_t key) { return (uint32_t)~key; }

/* How many keys are better than this one: a binary search without a branch. */
IQ_INLINE size_t n_better(const uint64_t *keys, size_t n, uint64_t key) {
    size_t first = 0;
    for (size_t half; n > 1; n -= half) {
        half = n / 2;
        first += keys[first + half - 1] > key ? half : 0;
    }
    return first + (n == 1 && keys[first] > key);
}

static void insert(const float *logits, size_t place, best_so_far *best) {
    const uint64_t key = key_of(logits[place], place);
    const size_t at = n_better(best->keys, best->n, key);
    if (at == best->k) return;
    if (best->n < best->k) best->n++;
    memmove(best->keys + at + 1, best->keys + at, (best->n - 1 - at) * sizeof *best->keys);
    best->keys[at] = key;
    if (best->n == best->k) best->least = logits[place_of(best->keys[best->k - 1])];
}

/* False only if none of n logits is above `least`; true with a NaN. */
IQ_INLINE bool any_above(const float *logits, int n, float least) {
    int above = 0;
    for (int i = 0; i < n; i++) above |= !(logits[i] <= least);
    return above != 0;
}

/* At most BLOCK logits, of which those that may be among the best are listed without a branch. Stops at a NaN and returns
 * its place, else `end`. */
static size_t take(const float *logits, size_t first, size_t end, best_so_far *best) {
    uint8_t found[BLOCK];
    size_t n = 0;
    for (size_t i = first; i < end; i++) {
        found[n] = (uint8_t)(i - first);
        n += !(logits[i] <= best->least);
    }
    for (size_t i = 0; i < n; i++) {
        const size_t place = first + found[i];
        if (isnan(logits[place])) return place;
        insert(logits, place, best);
    }
    return end;
}

/* A value that k of the groups reach, and hardly more. */
static float bound_of(const float *largest, size_t k) {
    float low = INFINITY, high = -INFINITY;
    for (int i = 0; i < N_GROUPS; i++) {
        low = largest[i] < low ? largest[i] : low;
        high = largest[i] > high ? largest[i] : high;
    }
    for (int step = 0; step < BOUND_STEPS; step++) {
        const float middle = low + 0.5f * (high - low); /* NaN, which nothing reaches, where one is infinite */
        uint32_t n_reach = 0;
        for (int i = 0; i < N_GROUPS; i++) n_reach += largest[i] >= middle;
        if (n_reach >= k) low = middle;
        else high = middle;
    }
    return low;
}

/* A value that k logits are above, and few more if they lie apart; -INFINITY if that is not known of any. */
static float bound(const float *logits, size_t n, size_t k) {
    if (k > N_GROUPS || n < N_GROUPS) return -INFINITY;
    if (n > BOUND_LOGITS) n = BOUND_LOGITS;
    float largest[N_GROUPS];
    memcpy(largest, logits, sizeof largest);
    for (size_t i = N_GROUPS; i + N_GROUPS <= n; i += N_GROUPS) {
        for (int j = 0; j < N_GROUPS; j++) largest[j] = logits[i + j] > largest[j] ? logits[i + j] : largest[j];
    }
    return nextafterf(bound_of(largest, k), -INFINITY);
}

static size_t only(size_t place, int64_t *places) {
    places[0] = (int64_t)place;
    return 1;
}

size_t iq_top_k(const float *logits, size_t n, size_t k, int64_t *places) {
    if (k > n) k = n;
    if (k == 0) return 0;
    best_so_far best = {(uint64_t *)places, 0, k, bound(logits, n, k)};
    size_t i = 0, stopped;
    for (; i + BLOCK <= n; i += BLOCK) {
        if (!any_above(logits + i, BLOCK, best.least)) continue;
        if ((stopped = take(logits, i, i + BLOCK, &best)) < i + BLOCK) return only(stopped, places);
    }
    if ((stopped = take(logits, i, n, &best)) < n) return only(stopped, places);
    for (i = 0; best.n < k; i++) { /* the others are forbidden tokens, as many as are wanted */
        if (logits[i] == -INFINITY) best.keys[best.n++] = key_of(logits[i], i);
    }
    for (i = 0; i < k; i++) places[i] = (int64_t)place_of(best.keys[i]);
    return k;
}
