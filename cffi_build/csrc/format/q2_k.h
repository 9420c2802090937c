/* Q2_K: superblock of 16 sub-blocks of 16, w = d * scale * q - dmin * min.
 *
 *   scales   byte sb: low nibble = scale, high nibble = min
 *   qs       half h of the superblock (128 weights) in qs[32h..32h+31]; group g of 32 weights at bits 2g..2g+1
 *   d, dmin  fp16 */
#ifndef IQ_FORMAT_Q2_K_H
#define IQ_FORMAT_Q2_K_H

#include "base/platform.h"

typedef struct {
    uint8_t scales[16];
    uint8_t qs[64];
    uint8_t d[2];
    uint8_t dmin[2];
} block_q2_k;

_Static_assert(sizeof(block_q2_k) == 84, "2.625 bits per weight");

#endif
