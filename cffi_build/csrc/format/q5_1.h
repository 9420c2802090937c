/* Q5_1: 32 weights, w = d * q + m.
 *
 *   d, m  fp16
 *   qh    u32, bit i = fifth bit of weight i
 *   qs    byte j: low nibble = weight j, high nibble = weight j + 16 */
#ifndef IQ_FORMAT_Q5_1_H
#define IQ_FORMAT_Q5_1_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t qh[4];
    uint8_t qs[16];
} block_q5_1;

_Static_assert(sizeof(block_q5_1) == 24, "6 bits per weight");

#endif
