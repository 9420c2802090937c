/* Any program: refused with a sentence, or it runs inside its memory on every instruction set, whatever tokens,
 * sequences, copies and cuts follow.
 *
 * Indices and sizes are small signed numbers, so that many programs pass the checks and are run. */
#include "base/fp16.h"
#include "input.h"
#include "iqrun.h"

#include <stdlib.h>

enum { MOST_OPS = 8, MOST_BUFFERS = 6, MOST_WEIGHTS = 6, ARENA = 1 << 16, N_BATCH = 4, N_SEQ = 2, N_CTX = 64 };

static uint8_t arena[ARENA]; /* what all weights show: the fuzzer's bytes, repeated */

static int32_t take_index(input *in) { return (int32_t)(take_u8(in) % 8) - 1; }

static uint32_t take_size(input *in) {
    static const uint32_t sizes[] = {0, 1, 2, 8, 16, 32, 64, 256, 4, 12, 96, 512, UINT32_MAX, 1u << 31, 7, 128};
    return sizes[take_u8(in) % 16];
}

static void take_op(input *in, iq_op *op) {
    op->kind = take_u8(in) % (IQ_OP_KINDS + 1);
    op->flags = take_u8(in) % 8;
    op->n = take_index(in);
    op->layer = take_index(in);
    for (int i = 0; i < IQ_OP_SLOTS; i++) {
        op->dst[i] = take_index(in), op->src[i] = take_index(in), op->weight[i] = take_index(in);
        op->bias[i] = take_u8(in) % 4 ? -1 : take_index(in);
        op->f[i] = i ? 0.0f : iq_bits_to_f32(take_u32(in));
    }
    op->n_head = (int32_t)take_size(in), op->n_head_kv = (int32_t)take_size(in);
    op->head_dim = (int32_t)take_size(in), op->n_rot = (int32_t)take_size(in);
}

static void take_weight(input *in, iq_weight *weight) {
    const iq_format_info *format = iq_format_at(take_u8(in) % iq_format_count());
    weight->type = take_u8(in) % 16 ? format->id : (int32_t)take_u32(in);
    weight->n_rows = take_size(in), weight->n_cols = take_size(in);
    weight->n_expert = take_u8(in) % 4;
    const uint64_t row_bytes = iq_row_bytes(weight->type, weight->n_cols);
    const uint64_t n_rows = weight->n_rows * (weight->n_expert ? weight->n_expert : 1);
    const int fits = row_bytes == 0 || n_rows == 0 || row_bytes <= ARENA / n_rows;
    weight->data = fits && take_u8(in) % 16 ? arena : NULL;
}

static void run_steps(iq_context *context, input *in, float *output) {
    for (int step = 0; step < 4; step++) {
        int32_t token[N_BATCH], seq[N_BATCH];
        uint8_t want[N_BATCH];
        for (int i = 0; i < N_BATCH; i++) {
            token[i] = take_index(in), seq[i] = take_u8(in) % 4 - 1, want[i] = take_u8(in) & 1;
        }
        const iq_batch batch = {
            .n_tokens = take_u8(in) % (N_BATCH + 2), .token = token, .seq = seq, .want = take_u8(in) & 1 ? want : NULL};
        (void)iq_step(context, &batch, output, NULL);
        (void)iq_seq_copy(context, take_index(in), take_index(in), take_u8(in), NULL);
        (void)iq_seq_truncate(context, take_index(in), take_u8(in), NULL);
    }
}

static void run(const iq_program *program, const iq_program_spec *spec, input *in) {
    const iq_context_params params = {.n_ctx = N_CTX,
                                      .n_batch = N_BATCH,
                                      .n_seq = N_SEQ,
                                      .n_threads = 1 + take_u8(in) % 2,
                                      .kv_type = take_u8(in) % 3};
    iq_context *context = NULL;
    if (iq_context_create(program, &params, &context, NULL) != IQ_OK) return;
    float *output = malloc((size_t)N_BATCH * spec->buffers[spec->output].n_cols * sizeof *output);
    if (!output) __builtin_trap();
    run_steps(context, in, output);
    free(output);
    iq_context_free(context);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size}, front = in;
    iq_op ops[MOST_OPS];
    iq_buffer buffers[MOST_BUFFERS];
    iq_weight weights[MOST_WEIGHTS];
    take_bytes(&front, arena, ARENA);
    iq_program_spec spec = {.ops = ops, .buffers = buffers, .weights = weights};
    spec.n_op = take_u8(&in) % (MOST_OPS + 1), spec.n_buffer = take_u8(&in) % (MOST_BUFFERS + 1);
    spec.n_weight = take_u8(&in) % (MOST_WEIGHTS + 1), spec.n_layer = take_u8(&in) % 3;
    spec.n_vocab = take_size(&in), spec.output = take_index(&in);
    for (uint32_t i = 0; i < spec.n_op; i++) take_op(&in, &ops[i]);
    for (uint32_t i = 0; i < spec.n_buffer; i++) {
        buffers[i].n_cols = take_size(&in), buffers[i].domain = (int32_t)(take_u8(&in) % 4) - 1;
        buffers[i].n_used = take_u8(&in) % 3;
    }
    for (uint32_t i = 0; i < spec.n_weight; i++) take_weight(&in, &weights[i]);
    const iq_kernels *kernels;
    const char *isa;
    for (size_t i = 0; (isa = iq_isa_at(i)) != NULL; i++) {
        iq_program *program = NULL;
        input rest = in;
        if (iq_kernels_find(isa, &kernels, NULL) != IQ_OK) continue;
        if (iq_program_create(&spec, kernels, &program, NULL) == IQ_OK) run(program, &spec, &rest);
        iq_program_free(program);
    }
    return 0;
}
