#include "engine/kv_cache.h"

static void allocate_layer(iq_kv_cache *kv, iq_kv_layer *layer, iq_memory *memory, const iq_kv_shape *shape) {
    iq_kv_layer made = {.n_block = kv->n_block, .n_head_kv = shape->n_head_kv, .head_dim = shape->head_dim};
    made.row_bytes = iq_kv_row_bytes(kv->type, shape->head_dim);
    made.v_offset = iq_kv_head_bytes(kv->type, IQ_KV_K, shape->head_dim);
    made.block_bytes = made.v_offset + iq_kv_head_bytes(kv->type, IQ_KV_V, shape->head_dim);
    made.data = iq_memory_take(memory, iq_mul_u64(kv->n_block, shape->n_head_kv), made.block_bytes);
    if (layer) *layer = made;
}

static void free_all_blocks(iq_kv_cache *kv) {
    kv->n_free = kv->n_block;
    for (uint32_t i = 0; i < kv->n_block; i++) kv->free_list[i] = kv->n_block - 1 - i;
}

void iq_kv_allocate(iq_kv_cache *kv, iq_memory *memory, const iq_program *program, const iq_context_params *params) {
    const uint64_t n_block = iq_kv_blocks(params->n_ctx);
    *kv = (iq_kv_cache){.n_seq = params->n_seq, .n_layer = program->n_layer, .type = params->kv_type};
    kv->n_block = (uint32_t)n_block;
    kv->free_list = iq_memory_take(memory, n_block, sizeof(uint32_t));
    kv->references = iq_memory_take_zeroed(memory, n_block, sizeof(uint32_t));
    kv->tables = iq_memory_take(memory, iq_mul_u64(n_block, params->n_seq), sizeof(uint32_t));
    kv->length = iq_memory_take_zeroed(memory, params->n_seq, sizeof(uint32_t));
    kv->reserved = iq_memory_take_zeroed(memory, params->n_seq, sizeof(uint32_t));
    kv->layers = iq_memory_take(memory, program->n_layer, sizeof *kv->layers);
    for (uint32_t i = 0; i < program->n_layer; i++) {
        allocate_layer(kv, kv->layers ? &kv->layers[i] : NULL, memory, &program->layers[i]);
    }
    if (kv->free_list) free_all_blocks(kv);
}

static uint32_t take_block(iq_kv_cache *kv) {
    const uint32_t block = kv->free_list[--kv->n_free];
    kv->references[block] = 1;
    return block;
}

static void release_block(iq_kv_cache *kv, uint32_t block) {
    if (--kv->references[block] == 0) kv->free_list[kv->n_free++] = block;
}

static void copy_block(iq_kv_cache *kv, uint32_t from, uint32_t to) {
    for (uint32_t i = 0; i < kv->n_layer; i++) {
        const iq_kv_layer *layer = &kv->layers[i];
        for (size_t head = 0; head < layer->n_head_kv; head++) {
            memcpy(iq_kv_head(layer, IQ_KV_K, to, head), iq_kv_head(layer, IQ_KV_K, from, head), layer->block_bytes);
        }
    }
}

/* The block that the next position goes to if it is begun already, else NULL. */
static uint32_t *begun_block(const iq_kv_cache *kv, uint32_t seq) {
    const uint32_t length = kv->length[seq];
    return length % IQ_KV_BLOCK == 0 ? NULL : &iq_kv_table(kv, seq)[length / IQ_KV_BLOCK];
}

/* Whether `seq` must copy its begun block because others hold it too. Sequences take their copies in order, so of
 * several that share a block and are all extended the last one keeps it. */
static bool needs_copy(const iq_kv_cache *kv, uint32_t seq, const uint32_t *n_new) {
    const uint32_t *block = begun_block(kv, seq);
    if (!block || kv->references[*block] == 1) return false;
    uint32_t holders = kv->references[*block];
    for (uint32_t s = 0; s < seq; s++) {
        const uint32_t *other = n_new[s] > 0 ? begun_block(kv, s) : NULL;
        holders -= other && *other == *block;
    }
    return holders > 1;
}

static uint64_t blocks_needed(const iq_kv_cache *kv, const uint32_t *n_new) {
    uint64_t needed = 0;
    for (uint32_t s = 0; s < kv->n_seq; s++) {
        if (n_new[s] == 0) continue;
        const uint64_t after = (uint64_t)kv->length[s] + n_new[s];
        needed += iq_kv_blocks(after) - iq_kv_blocks(kv->length[s]) + needs_copy(kv, s, n_new);
    }
    return needed;
}

static void reserve_sequence(iq_kv_cache *kv, uint32_t seq, uint32_t n_new) {
    uint32_t *begun = begun_block(kv, seq), *table = iq_kv_table(kv, seq);
    if (begun && kv->references[*begun] > 1) {
        const uint32_t copy = take_block(kv);
        copy_block(kv, *begun, copy);
        release_block(kv, *begun);
        *begun = copy;
    }
    kv->reserved[seq] = kv->length[seq] + n_new;
    const uint32_t end = iq_kv_blocks(kv->reserved[seq]);
    for (uint32_t i = iq_kv_blocks(kv->length[seq]); i < end; i++) table[i] = take_block(kv);
}

iq_status iq_kv_reserve(iq_kv_cache *kv, const uint32_t *n_new, iq_error *error) {
    const uint64_t needed = blocks_needed(kv, n_new);
    if (needed > kv->n_free) {
        return iq_fail(error, IQ_ERR_KV_FULL,
                       "the step needs %llu free KV blocks of %d positions, %u of %u are free: "
                       "truncate a sequence, or make the context (n_ctx) larger",
                       (unsigned long long)needed, IQ_KV_BLOCK, kv->n_free, kv->n_block);
    }
    for (uint32_t s = 0; s < kv->n_seq; s++) {
        kv->reserved[s] = kv->length[s];
        if (n_new[s] > 0) reserve_sequence(kv, s, n_new[s]);
    }
    return IQ_OK;
}

static void release_from(iq_kv_cache *kv, uint32_t seq, uint32_t length, uint32_t end) {
    const uint32_t *table = iq_kv_table(kv, seq);
    for (uint32_t i = iq_kv_blocks(length); i < iq_kv_blocks(end); i++) release_block(kv, table[i]);
}

void iq_kv_commit(iq_kv_cache *kv) { memcpy(kv->length, kv->reserved, kv->n_seq * sizeof *kv->length); }

void iq_kv_rollback(iq_kv_cache *kv) {
    for (uint32_t s = 0; s < kv->n_seq; s++) release_from(kv, s, kv->length[s], kv->reserved[s]);
}

void iq_kv_truncate(iq_kv_cache *kv, uint32_t seq, uint32_t length) {
    release_from(kv, seq, length, kv->length[seq]);
    kv->length[seq] = length;
}

static void share_blocks(iq_kv_cache *kv, uint32_t src, uint32_t dst, uint32_t length) {
    const uint32_t n_whole = length / IQ_KV_BLOCK, rest = length % IQ_KV_BLOCK;
    const uint32_t *from = iq_kv_table(kv, src);
    uint32_t *to = iq_kv_table(kv, dst);
    for (uint32_t i = 0; i < n_whole; i++) kv->references[to[i] = from[i]]++;
    if (rest > 0) copy_block(kv, from[n_whole], to[n_whole] = take_block(kv));
    kv->length[dst] = length;
}

/* Blocks that become free when dst is emptied: those that no other sequence holds. */
static uint32_t blocks_freed(const iq_kv_cache *kv, uint32_t seq) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < iq_kv_blocks(kv->length[seq]); i++) n += kv->references[iq_kv_table(kv, seq)[i]] == 1;
    return n;
}

iq_status iq_kv_copy(iq_kv_cache *kv, uint32_t src, uint32_t dst, uint32_t length, iq_error *error) {
    if (src == dst) {
        iq_kv_truncate(kv, src, length);
        return IQ_OK;
    }
    if (length % IQ_KV_BLOCK != 0 && kv->n_free + blocks_freed(kv, dst) == 0) {
        return iq_fail(error, IQ_ERR_KV_FULL,
                       "copying %u tokens needs a free KV block of %d positions, none of %u is "
                       "free: truncate a sequence, or make the context (n_ctx) larger",
                       length, IQ_KV_BLOCK, kv->n_block);
    }
    iq_kv_truncate(kv, dst, 0);
    share_blocks(kv, src, dst, length);
    return IQ_OK;
}

/* ---- state: the rows of one sequence, without the blocks ------------------------------------------------------ */

/* Copies the rows of one KV head: out of the cache, or into it. */
static void copy_head(const iq_kv_cache *kv, const iq_kv_layer *layer, iq_kv_side side, size_t head, uint32_t seq,
                      uint32_t length, uint8_t *out, const uint8_t *in) {
    for (uint32_t position = 0; position < length; position++) {
        uint8_t *block = iq_kv_head(layer, side, iq_kv_table(kv, seq)[position / IQ_KV_BLOCK], head);
        if (out) {
            iq_kv_get_row(kv->type, side, layer->head_dim, block, position % IQ_KV_BLOCK,
                          out + position * layer->row_bytes);
        } else {
            iq_kv_put_row(kv->type, side, layer->head_dim, in + position * layer->row_bytes, position % IQ_KV_BLOCK,
                          block);
        }
    }
}

static void copy_state(const iq_kv_cache *kv, uint32_t seq, uint32_t length, uint8_t *out, const uint8_t *in) {
    size_t at = 0;
    for (uint32_t i = 0; i < kv->n_layer; i++) {
        const iq_kv_layer *layer = &kv->layers[i];
        for (int side = IQ_KV_K; side <= IQ_KV_V; side++) {
            for (size_t head = 0; head < layer->n_head_kv; head++, at += length * layer->row_bytes) {
                copy_head(kv, layer, side, head, seq, length, out ? out + at : NULL, in ? in + at : NULL);
            }
        }
    }
}

void iq_kv_export(const iq_kv_cache *kv, uint32_t seq, uint32_t length, uint8_t *data) {
    copy_state(kv, seq, length, data, NULL);
}

iq_status iq_kv_import(iq_kv_cache *kv, uint32_t seq, uint32_t length, const uint8_t *data, iq_error *error) {
    const uint32_t needed = iq_kv_blocks(length), usable = kv->n_free + blocks_freed(kv, seq);
    if (needed > usable) {
        return iq_fail(error, IQ_ERR_KV_FULL,
                       "a state of %u tokens needs %u KV blocks of %d positions, %u of %u can be used: "
                       "truncate a sequence, or make the context (n_ctx) larger",
                       length, needed, IQ_KV_BLOCK, usable, kv->n_block);
    }
    iq_kv_truncate(kv, seq, 0);
    for (uint32_t i = 0; i < needed; i++) iq_kv_table(kv, seq)[i] = take_block(kv);
    kv->length[seq] = length;
    copy_state(kv, seq, length, NULL, data);
    return IQ_OK;
}
