/* The codebooks: what a code means, before the scales.
 *
 * A sub-block of the IQ*_K types may use a second codebook: the first plus a constant (the SHIFT).
 * The tables are Iwan Kawrakow's (ik_llama.cpp); see NOTICE. */
#ifndef IQ_FORMAT_CODEBOOKS_H
#define IQ_FORMAT_CODEBOOKS_H

#include "base/platform.h"

#include <math.h>

#define IQ2_SHIFT 5
#define IQ3_SHIFT 4
#define IQ4_SHIFT 4
#define IQ5_SHIFT 2
#define IQ6_SHIFT 1

/* clang-format off */
static const int8_t iq2_values[4] = {-31, -13, 1, 17};

static const int8_t iq3_values[8] = {-63, -40, -23, -10, 1, 13, 28, 47};

/* Also IQ4_NL and IQ4_XS, which have no second codebook. */
static const int8_t iq4_values[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
};

static const int8_t iq5_values[32] = {
    -126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36, -30, -24, -18, -12, -6,
    -1, 5, 11, 17, 23, 29, 36, 43, 51, 59, 68, 77, 87, 97, 109, 121,
};

/* iq6_value rounded to the nearest integer: what the integer kernels multiply with. */
static const int8_t iq6_values[64] = {
    -127, -121, -115, -109, -104, -98, -93, -88, -84, -79, -74, -70, -66, -62, -58, -54,
    -51, -47, -44, -40, -37, -34, -31, -28, -25, -22, -19, -16, -13, -11, -8, -5,
    -2, 0, 3, 6, 9, 12, 14, 17, 20, 23, 27, 30, 33, 36, 40, 44,
    47, 51, 55, 59, 63, 68, 72, 77, 82, 87, 92, 98, 103, 109, 115, 121,
};

/* Two weights per code. */
static const int8_t iq2_kl_pairs[32][2] = {
    {-63, -23}, {-63, 13}, {-40, -63}, {-40, -10}, {-40, 13}, {-40, 47}, {-23, -40}, {-23, -23},
    {-23, 1}, {-23, 13}, {-23, 28}, {-10, -63}, {-10, 1}, {-10, 13}, {-10, 47}, {1, -23},
    {1, -10}, {1, 1}, {1, 13}, {1, 28}, {13, -40}, {13, -23}, {13, -10}, {13, 1},
    {13, 13}, {28, -63}, {28, -23}, {28, 1}, {28, 28}, {28, 47}, {47, -23}, {47, 13},
};
/* clang-format on */

/* The 6-bit codebook is a cubic in the code q (0..63). Fused multiply-adds, because the files' own decoder rounds so:
 * with them the decoded weights agree to the last bit. */
static const float IQ6_CUBIC[4] = {0.0011972f, -0.11218f, 6.2568f, -127.0f};

IQ_INLINE float iq6_value(int q) {
    const float x = (float)q;
    return fmaf(x, fmaf(x, fmaf(x, IQ6_CUBIC[0], IQ6_CUBIC[1]), IQ6_CUBIC[2]), IQ6_CUBIC[3]);
}

#endif
