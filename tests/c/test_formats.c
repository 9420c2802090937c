/* Storage types under the sanitizers: every type, every start alignment, allocations of exactly the size that the
 * table states, random and extreme bytes. Returns the number of faults; the sanitizers report the rest. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fp16.h"
#include "iqrun.h"

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* -1: random bytes; else all bytes the same. */
static void fill_bytes(uint8_t *p, size_t n, int fill, uint64_t *state) {
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)(fill < 0 ? (int)(next_random(state) & 255) : fill);
}

/* The same bytes must decode to the same bits from any address. */
static int test_decode(const iq_format_info *info, int fill, uint64_t *state) {
    const size_t n_cols = 2 * (info->block_weights > 32 ? info->block_weights : 32), n_rows = 2;
    const size_t n_bytes = n_rows * (size_t)iq_row_bytes(info->id, n_cols);
    float *first = malloc(n_rows * n_cols * sizeof *first), *out = malloc(n_rows * n_cols * sizeof *out);
    uint8_t *bytes = malloc(n_bytes);
    int faults = !first || !out || !bytes;
    if (!faults) fill_bytes(bytes, n_bytes, fill, state);
    for (size_t offset = 0; offset < 8 && !faults; offset++) {
        uint8_t *src = malloc(n_bytes + offset); /* ends exactly where the last row ends */
        if (!src) return 1;
        memcpy(src + offset, bytes, n_bytes);
        faults += iq_dequantize_rows(info->id, src + offset, n_rows, n_cols, offset ? out : first, NULL) != IQ_OK;
        faults += offset && memcmp(first, out, n_rows * n_cols * sizeof *out) != 0;
        free(src);
    }
    free(first), free(out), free(bytes);
    return faults;
}

/* Halves survive the way through float32; special values keep their kind and sign. */
static int test_f16(void) {
    int faults = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        const float v = iq_f16_to_f32((uint16_t)h);
        const uint16_t back = iq_f32_to_f16(v);
        faults += isnan(v) ? (back & 0x7c00) != 0x7c00 || !(back & 0x3ff) || back >> 15 != h >> 15 : back != h;
    }
    const struct {
        float v;
        uint16_t h;
    } edges[] = {
        {65504.0f, 0x7bff},  {65519.99f, 0x7bff}, {65520.0f, 0x7c00},     {INFINITY, 0x7c00},
        {-INFINITY, 0xfc00}, {0x1p-24f, 0x0001},  {0x1p-25f, 0x0000},     {0x1.000002p-25f, 0x0001},
        {0x1p-149f, 0x0000}, {-0.0f, 0x8000},     {0x1.ff8p-15f, 0x03ff}, {0x1.ffcp-15f, 0x0400},
        {3.4e38f, 0x7c00},
    };
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) faults += iq_f32_to_f16(edges[i].v) != edges[i].h;
    return faults;
}

/* The same for bfloat16: a signalling NaN whose upper half is empty must not turn into infinity. */
static int test_bf16(void) {
    int faults = !isnan(iq_bf16_to_f32(iq_f32_to_bf16(iq_bits_to_f32(0x7f800001u))));
    for (uint32_t h = 0; h < 65536; h++) {
        const float v = iq_bf16_to_f32((uint16_t)h);
        faults += isnan(v) ? !isnan(iq_bf16_to_f32(iq_f32_to_bf16(v))) : iq_f32_to_bf16(v) != h;
    }
    faults += iq_f32_to_bf16(iq_bits_to_f32(0x3f808000u)) != 0x3f80; /* ties to even */
    faults += iq_f32_to_bf16(iq_bits_to_f32(0x3f818000u)) != 0x3f82;
    faults += iq_f32_to_bf16(iq_bits_to_f32(0x7f7fffffu)) != 0x7f80;
    return faults;
}

/* Random files of strings: the scan never reads past the end (the allocation is exact) and finds what fits. */
static int test_scan(uint64_t *state) {
    int faults = 0;
    for (int round = 0; round < 20000; round++) {
        const size_t size = next_random(state) % 64;
        uint8_t *data = malloc(size ? size : 1);
        uint64_t offsets[9];
        if (!data) return 1;
        for (size_t i = 0; i < size; i++) data[i] = next_random(state) % 3 ? 0 : (uint8_t)(next_random(state) % 9);
        const uint64_t count = next_random(state) % 9, start = next_random(state) % (size + 2);
        if (iq_scan_strings(data, size, start, count, offsets, NULL) == IQ_OK) faults += offsets[count] > size;
        free(data);
    }
    return faults;
}

int main(void) {
    uint64_t state = 1;
    int faults = test_f16() + test_bf16() + test_scan(&state);
    for (size_t i = 0; i < iq_format_count(); i++) {
        for (int round = 0; round < 20; round++) faults += test_decode(iq_format_at(i), -1, &state);
        faults += test_decode(iq_format_at(i), 0x00, &state) + test_decode(iq_format_at(i), 0xff, &state);
        faults += test_decode(iq_format_at(i), 0x7f, &state) + test_decode(iq_format_at(i), 0x80, &state);
    }
    printf("formats: %d faults\n", faults);
    return faults != 0;
}
