/* Activations for gemm_shape.inc.h: a panel holds one superblock of some tokens, in lane order, as tile_dot reads it.
 * Those who compute activations pack them (pack_x, where SHARE_PANELS is defined), or each matmul does so for itself. */

typedef struct {
    alignas(64) int8_t q[IQ_SLOTS][TILE_TOKENS][16 * TILE_X_BYTES]; /* as tile_dot reads them */
    float d[TILE_TOKENS][IQ_SLOTS], s[TILE_TOKENS][IQ_SLOTS];
    int32_t bias[TILE_TOKENS][IQ_SLOTS]; /* what the integer sum starts from */
    /* of each 32-block, in the lane of its first slot */
    float pair_s[TILE_TOKENS][IQ_SLOTS];
    int32_t pair_bias[TILE_TOKENS][IQ_SLOTS];
} panel;

/* Sums over 32-blocks: of two slots that are 1 or 4 lanes apart, in the lane of the first. */
#define ADD_PAIRS(in, apart, out)                                                                                      \
    for (int i = 0; i + (apart) < IQ_SLOTS; i++) (out)[i] = (in)[i] + (in)[i + (apart)]

IQ_INLINE void add_pairs(const iq_q8_block *b, const int APART, size_t token, panel *out) {
    ADD_PAIRS(b->s, APART, out->pair_s[token]);
    if (TILE_BIAS) ADD_PAIRS(b->bias, APART, out->pair_bias[token]);
}

IQ_INLINE void pack_pairs(const iq_q8_block *b, int apart, size_t token, panel *out) {
    if (apart == 1) {
        add_pairs(b, 1, token, out);
    } else {
        add_pairs(b, 4, token, out);
    }
}

IQ_INLINE void pack_slots(const iq_q8_block *b, size_t token, panel *out) {
    memcpy(out->s[token], b->s, sizeof b->s);
    if (TILE_BIAS) memcpy(out->bias[token], b->bias, sizeof b->bias);
}

IQ_INLINE void pack_codes(const iq_q8_block *b, size_t token, panel *out) {
    for (int slot = 0; slot < IQ_SLOTS; slot++) tile_store_x(out->q[IQ_SLOT_LANE(slot)][token], b->q + 16 * slot);
    memcpy(out->d[token], b->d, sizeof b->d);
}

#if defined(SHARE_PANELS)
/* For formats of every kind */
static void pack_x(const iq_q8_block *block, iq_slot_order order, size_t token, void *out) {
    pack_codes(block, token, out);
    pack_slots(block, token, out);
    pack_pairs(block, SLOTS_APART(order), token, out);
}
#endif

/* Superblocks first ... of n tokens to the panels of the scratch memory. */
IQ_INLINE void pack_tokens(const iq_matmul_task *task, tile_kind kind, size_t token, size_t n, size_t first,
                           size_t depth, panel *out) {
    for (size_t t = 0; t < n; t++) {
        const uint8_t *x = (const uint8_t *)task->x + (token + t) * task->x_stride;
        const iq_q8_block *blocks = (const iq_q8_block *)x + first;
        for (size_t i = 0; i < depth; i++) {
            pack_codes(&blocks[i], t, &out[i]);
            if (kind.wide) pack_pairs(&blocks[i], kind.apart, t, &out[i]);
            if (!kind.wide || kind.folded) pack_slots(&blocks[i], t, &out[i]);
        }
    }
}

/* Of activations that are packed already */
IQ_INLINE const panel *panels_at(const iq_matmul_task *task, size_t token, size_t superblock) {
    const size_t n_superblocks = (task->n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK;
    return (const panel *)task->x + token / TILE_TOKENS * n_superblocks + superblock;
}

/* Asks for a part of what pack_tokens will read next: superblock number `part` of the tokens from `token` on. */
IQ_INLINE void fetch_blocks(const iq_matmul_task *task, size_t token, size_t first, size_t depth, size_t part) {
    token += part / depth;
    if (part / depth >= TILE_TOKENS || token >= task->n_tokens) return;
    const uint8_t *x = (const uint8_t *)task->x + token * task->x_stride;
    const uint8_t *block = (const uint8_t *)((const iq_q8_block *)x + first + part % depth);
    for (size_t i = 0; i < sizeof(iq_q8_block); i += 64) PREFETCH(block + i);
}

/* Asks for a part of some panels: what formats of a kind read of slot `part`, and of token `part` if there is one. */
IQ_INLINE void fetch_panels(const panel *x, tile_kind kind, size_t depth, size_t part) {
    for (; depth > 0; depth--, x++) {
        for (size_t i = 0; i < sizeof x->q[part]; i += 64) PREFETCH((const uint8_t *)x->q[part] + i);
        if (part >= TILE_TOKENS) continue;
        PREFETCH(x->d[part]);
        if (TILE_BIAS) PREFETCH(kind.wide ? x->pair_bias[part] : x->bias[part]);
        if (kind.has_min || kind.folded) PREFETCH(kind.wide && !kind.folded ? x->pair_s[part] : x->s[part]);
    }
}
