/* The samplers of the core under the sanitizers: allocations of exactly the size of the logits, every length around the
 * blocks in which they are looked at, ties, infinities and NaN. Returns the number of faults; the sanitizers report the
 * rest. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "iqrun.h"

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double uniform(uint64_t *state) { return (double)(next_random(state) >> 11) * 0x1p-53; }

/* Kinds: spread logits, few different ones, mostly forbidden ones, any bits, rising, falling, all equal. */
enum { N_KINDS = 7 };

static float logit_of(int kind, size_t i, uint64_t *state) {
    const uint32_t bits = (uint32_t)next_random(state);
    float any;
    memcpy(&any, &bits, sizeof any);
    switch (kind) {
    case 0: return (float)(40.0 * uniform(state) - 20.0);
    case 1: return (float)(bits % 3) - 1.0f;
    case 2: return bits % 50 ? -INFINITY : (float)(bits % 97);
    case 3: return any;
    case 4: return (float)i;
    case 5: return -(float)i;
    default: return 1.5f;
    }
}

/* Whether place a is better than place b. */
static int is_better(const float *logits, size_t a, size_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
}

/* Each chosen place is better than the next, and than all that were not chosen. */
static int test_top_k(const float *logits, size_t n, size_t k) {
    const size_t expected = k < n ? k : n;
    int64_t *places = malloc((k ? k : 1) * sizeof *places);
    uint8_t *chosen = calloc(n, 1);
    int faults = !places || !chosen;
    const size_t found = faults ? 0 : iq_top_k(logits, n, k, places);
    size_t first_nan = 0;
    while (first_nan < n && !isnan(logits[first_nan])) first_nan++;
    if (first_nan < n && k) {
        faults += found != 1 || !isnan(logits[places[0]]);
    } else {
        faults += found != expected;
        for (size_t i = 0; i < found; i++) {
            faults += chosen[places[i]]++;
            faults += i && !is_better(logits, (size_t)places[i - 1], (size_t)places[i]);
        }
        for (size_t i = 0; found && i < n; i++) {
            faults += !chosen[i] && !is_better(logits, (size_t)places[found - 1], i);
        }
    }
    free(places), free(chosen);
    return faults;
}

static int falling(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static double mass_of(const double *logits, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += exp(logits[i] - logits[0]);
    return sum;
}

/* What each sampler keeps is what its definition says, and nothing is drawn from outside. */
static int test_narrow(size_t n, uint64_t *state) {
    double *logits = malloc(n * sizeof *logits), *before = malloc(n * sizeof *before);
    if (!logits || !before) return 1;
    for (size_t i = 0; i < n; i++) before[i] = i && next_random(state) % 4 == 0 ? -INFINITY : 30.0 * uniform(state);
    qsort(before, n, sizeof *before, falling);

    const double p = uniform(state), least = before[0] + log(p);
    memcpy(logits, before, n * sizeof *logits);
    const size_t nucleus = iq_narrow(logits, n, &(iq_narrow_step){IQ_NARROW_TOP_P, p}, 1);
    const double total = mass_of(before, n);
    int faults = nucleus < 1 || nucleus > n || mass_of(before, nucleus) < p * total;
    faults += nucleus > 1 && mass_of(before, nucleus - 1) >= p * total;

    const size_t enough = iq_narrow(logits, n, &(iq_narrow_step){IQ_NARROW_MIN_P, p}, 1);
    faults += enough < 1 || enough > n || (enough > 1 && before[enough - 1] < least);
    faults += enough < n && before[enough] >= least;

    const double temperatures[] = {0.0, 5e-324, 0.5, 2.0};
    const iq_narrow_step heat = {IQ_NARROW_TEMPERATURE, temperatures[next_random(state) % 4]};
    const size_t kept = iq_narrow(logits, n, &heat, 1);
    faults += kept != (heat.value < 0.1 ? 1 : n);
    faults += kept == n && n > 1 && logits[0] != before[0] / heat.value;

    const double draws[] = {0.0, uniform(state), 1.0 - 0x1p-53};
    for (size_t i = 0; i < 3; i++) {
        const size_t place = iq_draw(before, n, draws[i]);
        faults += place >= n || (i < 2 && before[place] == -INFINITY);
    }
    free(logits), free(before);
    return faults;
}

int main(void) {
    uint64_t state = 1;
    int faults = 0;
    for (int round = 0; round < 1000; round++) {
        const size_t n = 1 + next_random(&state) % (round % 50 ? 700 : 70000);
        float *logits = malloc(n * sizeof *logits);
        if (!logits) return 1;
        for (size_t i = 0; i < n; i++) logits[i] = logit_of(round % N_KINDS, i, &state);
        if (round % 11 == 0) logits[next_random(&state) % n] = NAN;
        faults += test_top_k(logits, n, next_random(&state) % (round % 3 ? 60 : n + 2));
        faults += test_narrow(1 + n % 300, &state);
        free(logits);
    }
    printf("sampling: %d faults\n", faults);
    return faults != 0;
}
