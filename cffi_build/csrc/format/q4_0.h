/* Q4_0: 32 weights, w = d * (q - 8).
 *
 *   d   fp16
 *   qs  byte j: low nibble = weight j, high nibble = weight j + 16 */
#ifndef IQ_FORMAT_Q4_0_H
#define IQ_FORMAT_Q4_0_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t qs[16];
} block_q4_0;

_Static_assert(sizeof(block_q4_0) == 18, "4.5 bits per weight");

#endif
