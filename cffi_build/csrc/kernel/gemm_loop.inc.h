/* The walk over a matrix that the shapes for many tokens share: some tiles of rows, some superblocks deep, are unpacked and
 * meet all tokens while they are in the cache. The shape defines GEMM_TILES, GEMM_SUPERBLOCKS, TILE_ROWS, kind_of,
 * unpack_into (one tile of one superblock) and gemm_tokens. */
IQ_INLINE void gemm_shape(const unpacker f, const iq_matmul_task *task) {
    gemm_scratch *scratch = task->scratch;
    const tile_kind kind = kind_of(f);
    const size_t n_superblocks = (task->n_cols + IQ_SUPERBLOCK - 1) / IQ_SUPERBLOCK, height = GEMM_TILES * TILE_ROWS;
    for (size_t first_row = 0; first_row < task->n_rows; first_row += height) {
        const size_t n_tiles = (iq_min_size(task->n_rows - first_row, height) + TILE_ROWS - 1) / TILE_ROWS;
        for (size_t first = 0; first < n_superblocks; first += GEMM_SUPERBLOCKS) {
            const size_t depth = iq_min_size(n_superblocks - first, GEMM_SUPERBLOCKS);
            for (size_t i = 0; i < n_tiles * depth; i++) {
                const size_t at = i / depth, k = i % depth;
                unpack_into(f, task, first_row + at * TILE_ROWS, first + k, scratch, at, k);
            }
            gemm_tokens(task, kind, first_row, first, depth, scratch);
        }
    }
}
