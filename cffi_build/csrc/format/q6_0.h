/* Q6_0: 32 weights, w = d * (q - 32).
 *
 *   d   fp16
 *   qh  upper two bits; byte j, bits 0..1: weight j, 2..3: weight j + 16, 4..5: weight j + 8, 6..7: weight j + 24
 *   qs  byte j: low nibble = weight j, high nibble = weight j + 16 */
#ifndef IQ_FORMAT_Q6_0_H
#define IQ_FORMAT_Q6_0_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t qh[8];
    uint8_t qs[16];
} block_q6_0;

_Static_assert(sizeof(block_q6_0) == 26, "6.5 bits per weight");

#endif
