/* How a program's matrices are cut into pieces. */
#include "engine/stream.h"

static uint32_t rows_per_piece(const iq_program *p, const iq_op *op, uint64_t piece_bytes) {
    size_t widest = 1;
    for (int i = 0; i < op->n; i++) {
        if (p->weights[op->weight[i]].row_bytes > widest) widest = p->weights[op->weight[i]].row_bytes;
    }
    uint32_t rows = IQ_ROW_UNIT;
    while (rows < 1u << 30 && 2 * (uint64_t)rows * widest <= piece_bytes) rows *= 2;
    return rows;
}

/* The pieces of a program, as they are found. */
typedef struct {
    const iq_program *program;
    iq_piece *pieces; /* or NULL */
    size_t capacity, n;
} piece_list;

static void append(piece_list *list, const iq_op *op, int32_t weight, size_t expert, size_t row, uint32_t rows) {
    const iq_program *p = list->program;
    const iq_program_weight *w = &p->weights[weight];
    const size_t n_rows = iq_min_size(rows, w->n_rows - row);
    const float share = w->n_expert == 0 ? 1.0f : (float)p->buffers[op->src[0]].n_used / (float)w->n_expert;
    const iq_piece piece = {weight, (uint32_t)(expert * w->n_rows + row), (uint32_t)n_rows, share,
                            iq_read_room(n_rows * w->row_bytes)};
    if (list->pieces && list->n < list->capacity) list->pieces[list->n] = piece;
    list->n++;
}

/* One matrix of each of an op's weights; `n_slot` of them from `slot` on take turns. */
static void cut_matrices(piece_list *list, const iq_op *op, size_t expert, iq_stream_op *out) {
    const int n_slot = (int)out->step;
    for (int slot = 0; slot < op->n; slot += n_slot) {
        for (int i = 0; i < n_slot && expert == 0; i++) out->first[slot + i] = (uint32_t)list->n + (uint32_t)i;
        for (size_t row = 0; row < list->program->weights[op->weight[slot]].n_rows; row += out->n_rows) {
            for (int i = slot; i < slot + n_slot; i++) append(list, op, op->weight[i], expert, row, out->n_rows);
        }
    }
}

static iq_stream_op cut_op(piece_list *list, const iq_op *op, uint64_t piece_bytes) {
    iq_stream_op out = {.step = op->kind == IQ_OP_GATED_MATMUL ? 2 : 1, .begin = (uint32_t)list->n};
    out.n_rows = rows_per_piece(list->program, op, piece_bytes);
    out.n_expert = list->program->weights[op->weight[0]].n_expert;
    cut_matrices(list, op, 0, &out);
    out.per_expert = (uint32_t)list->n - out.begin;
    for (uint32_t expert = 1; expert < out.n_expert; expert++) cut_matrices(list, op, expert, &out);
    out.end = (uint32_t)list->n;
    return out;
}

/* Between two ROUTEs all ops with experts use the same ones. */
static void find_groups(const iq_program *p, iq_stream_op *ops) {
    uint32_t end = 0;
    iq_stream_op *first = NULL;
    for (uint32_t i = p->n_op; i-- > 0;) {
        if (ops[i].n_expert > 0) {
            if (!first) end = ops[i].end;
            ops[i].group_end = end;
            first = &ops[i];
        } else if (p->ops[i].kind == IQ_OP_ROUTE) {
            if (first) first->leads = true;
            first = NULL;
        }
    }
}

size_t iq_stream_cut(const iq_program *program, uint64_t piece_bytes, iq_piece *pieces, size_t capacity,
                     iq_stream_op *ops) {
    piece_list list = {program, pieces, capacity, 0};
    for (uint32_t i = 0; i < program->n_op; i++) {
        const iq_op *op = &program->ops[i];
        iq_stream_op cut = {.step = 1};
        if (iq_op_is_matmul(op->kind)) cut = cut_op(&list, op, piece_bytes);
        if (ops) ops[i] = cut;
    }
    if (ops) find_groups(program, ops);
    return list.n;
}

size_t iq_stream_pieces(const iq_program *program, uint64_t piece_bytes, iq_piece *pieces, size_t capacity) {
    return iq_stream_cut(program, piece_bytes, pieces, capacity, NULL);
}
