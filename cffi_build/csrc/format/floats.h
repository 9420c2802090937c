/* Plain floating point: one weight per block, no scales. BF16 is the upper half of an IEEE float32. */
#ifndef IQ_FORMAT_FLOATS_H
#define IQ_FORMAT_FLOATS_H

#include "base/platform.h"

typedef struct {
    uint8_t v[4];
} block_f32;
typedef struct {
    uint8_t v[2];
} block_f16;
typedef struct {
    uint8_t v[2];
} block_bf16;

_Static_assert(sizeof(block_f32) == 4, "float32");
_Static_assert(sizeof(block_f16) == 2, "float16");
_Static_assert(sizeof(block_bf16) == 2, "bfloat16");

#endif
