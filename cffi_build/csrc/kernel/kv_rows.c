/* Rows of keys and values, into a block of the cache and out of it. */
#include "kernel/kv_layout.h"

#include "format/format.h"

IQ_INLINE size_t q8_blocks(size_t head_dim) { return (head_dim + IQ_KV_COLUMNS - 1) / IQ_KV_COLUMNS; }

size_t iq_kv_row_bytes(int32_t kv_type, size_t head_dim) {
    switch (kv_type) {
    case IQ_TYPE_F32: return 4 * head_dim;
    case IQ_TYPE_F16: return 2 * head_dim;
    case IQ_TYPE_Q8_0: return q8_blocks(head_dim) * sizeof(block_q8_0);
    default: return 0;
    }
}

size_t iq_kv_head_bytes(int32_t kv_type, iq_kv_side side, size_t head_dim) {
    return IQ_KV_BLOCK * iq_kv_row_bytes(kv_type, side == IQ_KV_K ? head_dim : iq_round_up(head_dim, 16));
}

/* ---- n elements of `size` bytes: `stride` bytes apart in the block, side by side in the row ---------------------- */

IQ_INLINE void scatter(const uint8_t *row, size_t n, size_t size, uint8_t *block, size_t stride) {
    for (size_t i = 0; i < n; i++) memcpy(block + i * stride, row + i * size, size);
}

IQ_INLINE void gather(uint8_t *row, size_t n, size_t size, const uint8_t *block, size_t stride) {
    for (size_t i = 0; i < n; i++) memcpy(row + i * size, block + i * stride, size);
}

/* ---- places ------------------------------------------------------------------------------------------------------ */

IQ_INLINE size_t v_place(size_t head_dim, size_t position, size_t size) {
    return position * iq_round_up(head_dim, 16) * size;
}

/* Codes of a position in a unit. */
IQ_INLINE size_t k_codes(size_t position) { return IQ_KV_CODES + position * 4; }
IQ_INLINE size_t v_codes(size_t position) { return IQ_KV_CODES + position / 2 * 2 * IQ_KV_COLUMNS + position % 2; }

static void put_q8(iq_kv_side side, size_t n_unit, const uint8_t *row, size_t position, uint8_t *unit) {
    for (; n_unit > 0; n_unit--, row += sizeof(block_q8_0), unit += IQ_KV_UNIT) {
        memcpy(unit + 2 * position, row, 2);
        if (side == IQ_KV_K) {
            scatter(row + 2, 8, 4, unit + k_codes(position), 4 * IQ_KV_BLOCK);
        } else {
            scatter(row + 2, IQ_KV_COLUMNS, 1, unit + v_codes(position), 2);
        }
    }
}

static void get_q8(iq_kv_side side, size_t n_unit, const uint8_t *unit, size_t position, uint8_t *row) {
    for (; n_unit > 0; n_unit--, row += sizeof(block_q8_0), unit += IQ_KV_UNIT) {
        memcpy(row, unit + 2 * position, 2);
        if (side == IQ_KV_K) {
            gather(row + 2, 8, 4, unit + k_codes(position), 4 * IQ_KV_BLOCK);
        } else {
            gather(row + 2, IQ_KV_COLUMNS, 1, unit + v_codes(position), 2);
        }
    }
}

void iq_kv_put_row(int32_t kv_type, iq_kv_side side, size_t head_dim, const uint8_t *row, size_t position,
                   uint8_t *head) {
    const size_t size = kv_type == IQ_TYPE_F32 ? 4 : 2;
    if (kv_type == IQ_TYPE_Q8_0) {
        put_q8(side, q8_blocks(head_dim), row, position, head);
    } else if (side == IQ_KV_V) {
        memcpy(head + v_place(head_dim, position, size), row, size * head_dim);
    } else if (size == 2) {
        scatter(row, head_dim, 2, head + 2 * position, 2 * IQ_KV_BLOCK);
    } else {
        scatter(row, head_dim, 4, head + 4 * position, 4 * IQ_KV_BLOCK);
    }
}

void iq_kv_get_row(int32_t kv_type, iq_kv_side side, size_t head_dim, const uint8_t *head, size_t position,
                   uint8_t *row) {
    const size_t size = kv_type == IQ_TYPE_F32 ? 4 : 2;
    if (kv_type == IQ_TYPE_Q8_0) {
        get_q8(side, q8_blocks(head_dim), head, position, row);
    } else if (side == IQ_KV_V) {
        memcpy(row, head + v_place(head_dim, position, size), size * head_dim);
    } else if (size == 2) {
        gather(row, head_dim, 2, head + 2 * position, 2 * IQ_KV_BLOCK);
    } else {
        gather(row, head_dim, 4, head + 4 * position, 4 * IQ_KV_BLOCK);
    }
}
