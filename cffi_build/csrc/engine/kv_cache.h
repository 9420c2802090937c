/* The paged KV cache: sequences are tables of blocks, blocks are counted references.
 *
 * Per layer: [KV head][block][K, V], and in them what kernel/kv_layout.h says. What attention reads for one head of a
 * sequence is contiguous as long as its blocks follow each other: memory is read twice as fast in long runs as in
 * pieces of some KB. A block number means the same positions in every layer.
 */
#ifndef IQ_ENGINE_KV_CACHE_H
#define IQ_ENGINE_KV_CACHE_H

#include "engine/program.h"

typedef struct {
    uint8_t *data;
    size_t n_block;
    size_t block_bytes; /* one block of one KV head: K, then V */
    size_t v_offset;
    size_t row_bytes; /* one position of one KV head in K or V, outside the cache */
    size_t n_head_kv, head_dim;
} iq_kv_layer;

typedef struct {
    uint32_t n_seq, n_layer, n_block, n_free;
    int32_t type;
    uint32_t *free_list;  /* n_free block numbers */
    uint32_t *references; /* per block */
    uint32_t *tables;     /* per sequence: n_block block numbers */
    uint32_t *length;     /* per sequence: positions cached */
    uint32_t *reserved;   /* per sequence: length after the running step */
    iq_kv_layer *layers;
} iq_kv_cache;

/* Takes (or counts) the memory of a cache for n_ctx positions; nothing of it is cleared but the small tables. */
void iq_kv_allocate(iq_kv_cache *kv, iq_memory *memory, const iq_program *program, const iq_context_params *params);

/* Makes room for n_new[s] more positions in every sequence s, or changes nothing (IQ_ERR_KV_FULL). Blocks that are
 * shared with another sequence and will be written are copied first. */
iq_status iq_kv_reserve(iq_kv_cache *kv, const uint32_t *n_new, iq_error *error);

/* Ends a step: keeps what was reserved, or gives it back. */
void iq_kv_commit(iq_kv_cache *kv);
void iq_kv_rollback(iq_kv_cache *kv);

void iq_kv_truncate(iq_kv_cache *kv, uint32_t seq, uint32_t length);
iq_status iq_kv_copy(iq_kv_cache *kv, uint32_t src, uint32_t dst, uint32_t length, iq_error *error);

/* The rows of the first `length` positions, as iqrun.h describes them for iq_seq_export. */
void iq_kv_export(const iq_kv_cache *kv, uint32_t seq, uint32_t length, uint8_t *data);
iq_status iq_kv_import(iq_kv_cache *kv, uint32_t seq, uint32_t length, const uint8_t *data, iq_error *error);

IQ_INLINE uint32_t iq_kv_blocks(uint64_t n_positions) {
    return (uint32_t)((n_positions + IQ_KV_BLOCK - 1) / IQ_KV_BLOCK);
}

IQ_INLINE uint32_t *iq_kv_table(const iq_kv_cache *kv, uint32_t seq) { return kv->tables + (size_t)seq * kv->n_block; }

/* K or V of KV head `head` in a block. */
IQ_INLINE uint8_t *iq_kv_head(const iq_kv_layer *layer, iq_kv_side side, uint32_t block, size_t head) {
    return layer->data + (head * layer->n_block + block) * layer->block_bytes + (side == IQ_KV_V ? layer->v_offset : 0);
}

#endif
