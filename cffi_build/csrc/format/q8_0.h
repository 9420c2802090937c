/* Q8_0: 32 weights, w = d * q. */
#ifndef IQ_FORMAT_Q8_0_H
#define IQ_FORMAT_Q8_0_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2]; /* fp16 */
    int8_t qs[32];
} block_q8_0;

_Static_assert(sizeof(block_q8_0) == 34, "8.5 bits per weight");

#endif
