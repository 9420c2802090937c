/* Reading numbers from a fuzzer's bytes; what is missing at the end repeats from the front, or is zero. And the
 * instruction sets of this machine. */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "iqrun.h"

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
    const size_t used = n < in->left ? n : in->left;
    memset(out, 0, n);
    if (used > 0) memcpy(out, in->data, used);
    for (size_t have = used; have > 0 && have < n; have *= 2) {
        memcpy(out + have, out, have < n - have ? have : n - have);
    }
    in->data += used;
    in->left -= used;
}

/* The index-th instruction set that runs here, best first; NULL past the end. Asked for once: a virtual machine answers
 * each question about its processor slowly. */
static inline const iq_kernels *kernels_at(size_t index) {
    static const iq_kernels *found[16];
    static size_t n, asked;
    for (const char *isa; n <= index && (isa = iq_isa_at(asked)) != NULL; asked++) {
        n += iq_kernels_find(isa, &found[n], NULL) == IQ_OK;
    }
    return index < n ? found[index] : NULL;
}

#endif
