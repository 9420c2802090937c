/* Where keys and values stand in one KV head of one block of IQ_KV_BLOCK positions; the same on every instruction set.
 *
 *            K                                              V
 * f32, f16   [column][64 positions]                         [position][columns, rounded up to 16]
 * q8_0       [32 columns at a time]                         [32 columns at a time]
 *              f16 d[64]; int8 [8][64 positions][4 columns]   f16 d[64]; int8 [32][32 columns][2 positions]
 *
 * A vector of K holds 16 positions, one of V 16 columns: neither is transposed when it is read. Outside the cache (in a
 * saved state, and on the way into the cache) a position is a row: head_dim values, or blocks of Q8_0, the last one
 * filled up with zeros.
 */
#ifndef IQ_KERNEL_KV_LAYOUT_H
#define IQ_KERNEL_KV_LAYOUT_H

#include "format/q8_0.h"

#define IQ_KV_BLOCK 64 /* positions */
#define IQ_KV_COLUMNS 32 /* of one scale in q8_0 */

#define IQ_KV_UNIT (IQ_KV_BLOCK * sizeof(block_q8_0)) /* q8_0: bytes of 64 positions x 32 columns */
#define IQ_KV_CODES (IQ_KV_BLOCK * sizeof(uint16_t))  /* ... where its codes begin */

typedef enum { IQ_KV_K, IQ_KV_V } iq_kv_side;

/* Bytes of one row, and of one KV head of one block; 0 for a type that the cache does not know. */
size_t iq_kv_row_bytes(int32_t kv_type, size_t head_dim);
size_t iq_kv_head_bytes(int32_t kv_type, iq_kv_side side, size_t head_dim);

/* Copies the row of `position` (below IQ_KV_BLOCK) into a head of a block, or out of it. */
void iq_kv_put_row(int32_t kv_type, iq_kv_side side, size_t head_dim, const uint8_t *row, size_t position,
                   uint8_t *head);
void iq_kv_get_row(int32_t kv_type, iq_kv_side side, size_t head_dim, const uint8_t *head, size_t position,
                   uint8_t *row);

#endif
