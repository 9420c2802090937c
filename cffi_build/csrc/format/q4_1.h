/* Q4_1: 32 weights, w = d * q + m.
 *
 *   d, m  fp16
 *   qs    byte j: low nibble = weight j, high nibble = weight j + 16 */
#ifndef IQ_FORMAT_Q4_1_H
#define IQ_FORMAT_Q4_1_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t qs[16];
} block_q4_1;

_Static_assert(sizeof(block_q4_1) == 20, "5 bits per weight");

#endif
