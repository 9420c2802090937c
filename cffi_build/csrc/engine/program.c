#include "engine/program.h"

#include <stdlib.h>

static iq_status check_spec(const iq_program_spec *spec, const iq_kernels *kernels, iq_error *error) {
    if (!spec || !kernels) return iq_fail(error, IQ_ERR_ARGUMENT, "a program needs a spec and a kernel table");
    if (!spec->ops || !spec->buffers || spec->n_op == 0 || spec->n_buffer == 0 ||
        (spec->n_weight > 0 && !spec->weights)) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "a program needs ops, buffers and weights");
    }
    if (spec->n_vocab == 0 || spec->n_vocab > INT32_MAX) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "a vocabulary of %u tokens is not possible", spec->n_vocab);
    }
    if (spec->n_layer > spec->n_op) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "%u layers of KV cache for %u ops: some have no attention op",
                       spec->n_layer, spec->n_op);
    }
    if (spec->n_op > INT32_MAX / 2 || spec->n_buffer > INT32_MAX || spec->n_weight > INT32_MAX) {
        return iq_fail(error, IQ_ERR_ARGUMENT, "a program of %u ops is not possible", spec->n_op);
    }
    return IQ_OK;
}

static bool allocate(iq_program *p) {
    iq_memory *m = &p->memory;
    p->ops = iq_memory_take(m, p->n_op, sizeof *p->ops);
    p->buffers = iq_memory_take(m, p->n_buffer, sizeof *p->buffers);
    p->weights = iq_memory_take_zeroed(m, p->n_weight, sizeof *p->weights);
    p->stages = iq_memory_take(m, iq_plan_max_stages(p->n_op), sizeof *p->stages);
    p->first_stage = iq_memory_take(m, (uint64_t)p->n_op + 1, sizeof *p->first_stage);
    p->buffer_orders = iq_memory_take_zeroed(m, p->n_buffer, sizeof *p->buffer_orders);
    p->layers = iq_memory_take_zeroed(m, p->n_layer, sizeof *p->layers);
    return !m->failed;
}

static void bind_weights(iq_program *p, const iq_weight *weights) {
    for (uint32_t i = 0; i < p->n_weight; i++) {
        const iq_weight *w = &weights[i];
        p->weights[i] = (iq_program_weight){
            .data = w->data,
            .type = w->type,
            .n_rows = w->n_rows,
            .n_cols = w->n_cols,
            .n_expert = (uint32_t)w->n_expert,
            .row_bytes = iq_row_bytes(w->type, w->n_cols),
            .decode = iq_format_row(w->type)->decode,
            .kernels = iq_format_kernels_find(p->kernels, w->type),
        };
    }
}

/* A file may hold its float32 vectors at any address: copies are aligned, and small. */
static void copy_vector(iq_program *p, int32_t weight) {
    if (weight < 0 || p->weights[weight].vector) return;
    iq_program_weight *w = &p->weights[weight];
    w->vector = iq_memory_take(&p->memory, w->n_rows * w->n_cols, sizeof(float));
    if (w->vector) memcpy(w->vector, w->data, w->n_rows * w->n_cols * sizeof(float));
}

static bool copy_vectors(iq_program *p) {
    for (uint32_t i = 0; i < p->n_op; i++) {
        const iq_op *op = &p->ops[i];
        if (op->kind == IQ_OP_RMS_NORM || op->kind == IQ_OP_ROPE_TABLE) copy_vector(p, op->weight[0]);
        for (int j = 0; iq_op_is_matmul(op->kind) && j < op->n; j++) copy_vector(p, op->bias[j]);
    }
    return !p->memory.failed;
}

static iq_status build(iq_program *p, const iq_program_spec *spec, iq_error *error) {
    if (!allocate(p)) return iq_fail(error, IQ_ERR_MEMORY, "no memory for a program of %u ops", p->n_op);
    memcpy(p->ops, spec->ops, p->n_op * sizeof *p->ops);
    memcpy(p->buffers, spec->buffers, p->n_buffer * sizeof *p->buffers);
    iq_status status = iq_program_check(p, spec->weights, error);
    if (status != IQ_OK) return status;
    bind_weights(p, spec->weights);
    if (!copy_vectors(p)) return iq_fail(error, IQ_ERR_MEMORY, "no memory for the program's vectors");
    return iq_program_plan(p, error);
}

iq_status iq_program_create(const iq_program_spec *spec, const iq_kernels *kernels, iq_program **program,
                            iq_error *error) {
    if (!program) return iq_fail(error, IQ_ERR_ARGUMENT, "no place for the program was given");
    iq_status status = check_spec(spec, kernels, error);
    if (status != IQ_OK) return status;
    iq_program *p = calloc(1, sizeof *p);
    if (!p) return iq_fail(error, IQ_ERR_MEMORY, "no memory for a program");
    p->kernels = kernels;
    p->n_op = spec->n_op;
    p->n_buffer = spec->n_buffer;
    p->n_weight = spec->n_weight;
    p->n_layer = spec->n_layer;
    p->n_vocab = spec->n_vocab;
    p->output = spec->output;
    p->max_group = 1;
    status = build(p, spec, error);
    if (status != IQ_OK) {
        iq_program_free(p);
        return status;
    }
    *program = p;
    return IQ_OK;
}

void iq_program_free(iq_program *program) {
    if (!program) return;
    iq_memory_free(&program->memory);
    free(program);
}
