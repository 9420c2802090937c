/* Q4_K: superblock of 8 sub-blocks of 32, w = d * scale * q - dmin * min.
 *
 *   d, dmin  fp16
 *   scales   see format/k_scales.h
 *   qs       byte 32c + j: low nibble = weight 64c + j (sub-block 2c), high nibble = weight 64c + 32 + j */
#ifndef IQ_FORMAT_Q4_K_H
#define IQ_FORMAT_Q4_K_H

#include "base/platform.h"
#include "format/k_scales.h"

typedef struct {
    uint8_t d[2];
    uint8_t dmin[2];
    uint8_t scales[12];
    uint8_t qs[128];
} block_q4_k;

_Static_assert(sizeof(block_q4_k) == 144, "4.5 bits per weight");

#endif
