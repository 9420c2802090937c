/* Q6_K: superblock of 16 sub-blocks of 16, w = d * scale * (q - 32).
 *
 *   Half h (128 weights) takes ql[64h..64h+63] and qh[32h..32h+31]; for j in 0..31
 *   ql      byte j:      low nibble = weight j,      high nibble = weight j + 64
 *           byte 32 + j: low nibble = weight j + 32, high nibble = weight j + 96
 *   qh      byte j: upper two bits of weights j, j + 32, j + 64, j + 96 at bits 0, 2, 4, 6
 *   scales  int8
 *   d       fp16 */
#ifndef IQ_FORMAT_Q6_K_H
#define IQ_FORMAT_Q6_K_H

#include "base/platform.h"

typedef struct {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint8_t d[2];
} block_q6_k;

_Static_assert(sizeof(block_q6_k) == 210, "6.5625 bits per weight");

#endif
