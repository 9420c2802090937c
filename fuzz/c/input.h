/* Reading numbers from a fuzzer's bytes; what is missing at the end repeats from the front, or is zero. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *data;
    size_t left;
} input;

static inline uint8_t take_u8(input *in) {
    if (in->left == 0) return 0;
    in->left--;
    return *in->data++;
}

static inline uint32_t take_u32(input *in) {
    uint32_t value = 0;
    for (int i = 0; i < 4; i++) value |= (uint32_t)take_u8(in) << 8 * i;
    return value;
}

/* Fills `out`; a short rest is repeated, so that a small input still gives full rows. */
static inline void take_bytes(input *in, uint8_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = in->left ? in->data[i % in->left] : 0;
    const size_t used = n < in->left ? n : in->left;
    in->data += used;
    in->left -= used;
}

#endif
