/* A task's rows, of which a second band may stand elsewhere (iq_matmul_task.more_rows). */

typedef struct {
    const uint8_t *start;
    float *y; /* of the first token */
    size_t y_stride;
} matmul_row;

IQ_INLINE matmul_row row_of_band(const iq_matmul_task *task, size_t band, size_t row) {
    if (band == 0) return (matmul_row){task->rows + row * task->row_bytes, task->y + row, task->y_stride};
    return (matmul_row){task->more_rows + row * task->row_bytes, task->more_y + row, task->more_y_stride};
}

/* Which row is number i of n_rows + n_more: the bands take turns, then comes what is left of the first. */
typedef struct {
    size_t band, row;
} band_row;

IQ_INLINE band_row in_turn(size_t n_more, size_t i) {
#if defined(__GNUC__)
    __asm__("" : "+r"(i)); /* or gcc writes loops over i twice: for both bands, and for what is left */
#endif
    const bool both = i < 2 * n_more;
    return (band_row){both ? i % 2 : 0, both ? i / 2 : i - n_more};
}

IQ_INLINE matmul_row row_in_turn(const iq_matmul_task *task, size_t i) {
    const band_row at = in_turn(task->n_more, i);
    return row_of_band(task, at.band, at.row);
}

/* For the other shapes: one band after the other */
static void each_band(const iq_matmul_task *task, iq_matmul_fn matmul) {
    iq_matmul_task band = *task;
    band.n_more = 0;
    matmul(&band);
    band.rows = task->more_rows, band.n_rows = task->n_more;
    band.y = task->more_y, band.y_stride = task->more_y_stride;
    matmul(&band);
}
