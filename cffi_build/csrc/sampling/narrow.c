/* What samplers do with logits that stand best first: all of them keep a head, or leave the order as it is. */
#include "base/platform.h"
#include "iqrun.h"

#include <math.h>

/* The sum of the probabilities, relative to that of the best. */
static double mass(const double *logits, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += exp(logits[i] - logits[0]);
    return sum;
}

/* The shortest head whose probabilities sum to at least p. */
static size_t top_p(const double *logits, size_t n, double p) {
    const double total = mass(logits, n);
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += exp(logits[i] - logits[0]);
        if (sum >= p * total) return i + 1;
    }
    return n;
}

/* Those at least p times as probable as the best. */
static size_t min_p(const double *logits, size_t n, double p) {
    const double least = logits[0] + log(p);
    while (n > 1 && !(logits[n - 1] >= least)) n--;
    return n;
}

/* Divides by t; where that overflows, 0 among them, the best stays alone as it is. */
static size_t temperature(double *logits, size_t n, double t) {
    if (!isfinite(logits[0] / t)) return 1;
    for (size_t i = 0; i < n; i++) logits[i] /= t;
    return n;
}

size_t iq_narrow(double *logits, size_t n, const iq_narrow_step *steps, size_t n_steps) {
    for (size_t i = 0; i < n_steps; i++) {
        const double value = steps[i].value;
        switch ((iq_narrow_kind)steps[i].kind) {
        case IQ_NARROW_TOP_P: n = top_p(logits, n, value); break;
        case IQ_NARROW_MIN_P: n = min_p(logits, n, value); break;
        case IQ_NARROW_TEMPERATURE: n = temperature(logits, n, value); break;
        }
    }
    return n;
}

size_t iq_draw(const double *logits, size_t n, double uniform) {
    const double total = mass(logits, n);
    double sum = 0.0;
    for (size_t i = 0; i + 1 < n; i++) {
        sum += exp(logits[i] - logits[0]);
        if (sum > uniform * total) return i;
    }
    return n - 1;
}
