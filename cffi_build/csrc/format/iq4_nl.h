/* IQ4_NL: 32 weights, w = d * iq4_values[q] (format/codebooks.h).
 *
 *   d   fp16
 *   qs  byte j: low nibble = weight j, high nibble = weight j + 16 */
#ifndef IQ_FORMAT_IQ4_NL_H
#define IQ_FORMAT_IQ4_NL_H

#include "base/platform.h"

typedef struct {
    uint8_t d[2];
    uint8_t qs[16];
} block_iq4_nl;

_Static_assert(sizeof(block_iq4_nl) == 18, "4.5 bits per weight");

#endif
