/* Error feedback: sixteen rows are encoded side by side, one per SIMD lane, column after column, and what a code misses
 * is made up for in the columns still to come (the idea of GPTQ, Frantar et al. 2022, in the form of LDLQ, Chee et al.
 * 2023). For a row w, its codes' values q, e = w - q and H = X^T X, the loss e H e^T is the sum over columns c of
 *
 *     D[c] (t[c] - q[c])^2,   t[c] = w[c] + sum over i before c of e[i] F[i][c],   H = (F + 1) diag(D) (F + 1)^T
 *
 * so the best code is the one nearest to the target t[c]. The same form serves a later pass, that chooses one
 * superblock of a row again while the others stay: then t also sums over the columns i outside the superblock, with
 * F[i][c] = (H[i][s] inverse(H[s][s]))[c], and F and D inside it are those of H[s][s] alone. */
#ifndef IQ_QUANTIZE_FEEDBACK_H
#define IQ_QUANTIZE_FEEDBACK_H

#include "quantize/scaled.h"

/* One superblock of sixteen rows. Columns stand in the format's feedback order. */
typedef struct {
    const iq_book *book;
    iq_scale_rule rule;
    iq_effort effort;
    size_t sub;            /* columns per sub-block */
    const float *feedback; /* F[i][c] of the superblock's columns at feedback[i * stride + c] */
    size_t stride;
    const float *curvature;                            /* D */
    alignas(64) float weight[IQ_SUPERBLOCK][IQ_LANES]; /* w, in the lane's unit: errors are counted from it */
    alignas(64) float target[IQ_SUPERBLOCK][IQ_LANES]; /* t, but for the errors inside this superblock */
} iq_feedback_panel;

/* Codes for it, under one d per lane. */
typedef struct {
    alignas(64) float d[IQ_LANES];                    /* in the lane's unit */
    alignas(64) float loss[IQ_LANES];                 /* sum of D (t - q)^2 */
    alignas(64) float error[IQ_SUPERBLOCK][IQ_LANES]; /* w - q */
    alignas(64) float k[IQ_LANES][IQ_LANES];          /* [sub-block][lane], as in iq_choice */
    alignas(64) float shift[IQ_LANES][IQ_LANES];
    alignas(64) float target[IQ_SUPERBLOCK][IQ_LANES]; /* t, complete for the columns that are settled */
    uint8_t code[IQ_SUPERBLOCK][IQ_LANES];
} iq_feedback_codes;

struct iq_feedback {
    /* sum[c] += sum over i < n of error[i] * feedback[i * stride + c], for c < n_sum, a multiple of 16 */
    void (*add_errors)(const float (*error)[IQ_LANES], size_t n, const float *feedback, size_t stride,
                       float (*sum)[IQ_LANES], size_t n_sum);
    void (*encode)(const iq_feedback_panel *panel, iq_feedback_codes *codes);  /* everything, from d */
    void (*measure)(const iq_feedback_panel *panel, iq_feedback_codes *codes); /* loss, from error */
};

#endif
