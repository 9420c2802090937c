/* Row encoder of the formats with blocks of 32 weights, each with a scale (and, for some, an offset) of its own. */
#ifndef IQ_QUANTIZE_BLOCKS32_H
#define IQ_QUANTIZE_BLOCKS32_H

#include "base/fp16.h"
#include "quantize/encode.h"
#include "quantize/search.h"

/* One block, searched and ready to be packed. */
typedef struct {
    uint8_t code[32]; /* from 0 */
    uint16_t d, m;    /* fp16 scale and offset */
} iq_block32;

typedef struct {
    void (*make_book)(iq_book *book);
    bool has_offset;
    uint32_t block_bytes;
    void (*pack)(const iq_block32 *b, uint8_t *block);
} iq_block32_format;

void iq_encode_blocks32(const iq_block32_format *format, const iq_encode_job *job, const float *x,
                        const float *importance, size_t n_cols, uint8_t *row);
size_t iq_blocks32_scratch_bytes(void);

#endif
