/* Any program: refused with a sentence, or it runs inside its memory on every instruction set, whatever tokens,
 * sequences, copies, cuts and states follow. Some take their weights from a stream, too: the same bits must come out if
 * the file has the same bytes, and an error or other numbers if it is too short or they lie elsewhere.
 *
 * Indices and sizes are small signed numbers, so that many programs pass the checks and are run. */
#define _GNU_SOURCE 1 /* memfd_create */
#include "base/fp16.h"
#include "input.h"
#include "iqrun.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_OPS = 12, MOST_BUFFERS = 10, MOST_WEIGHTS = 6, ARENA = 1 << 16, N_BATCH = 4, N_SEQ = 2, N_CTX = 64 };
enum { PIECE_BYTES = 2048, MOST_PIECES = 4096 };

static uint8_t arena[ARENA]; /* what all weights show: the fuzzer's bytes, repeated */

static int32_t take_index(input *in) { return (int32_t)(take_u8(in) % (MOST_BUFFERS + 2)) - 1; }

/* Mostly one of 0 .. n - 1; else something just outside. */
static int32_t take_id(input *in, int32_t n) {
    const uint8_t byte = take_u8(in);
    return byte < 240 ? byte % n : byte % (n + 2) - 1;
}

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

/* A sum over bytes, to compare two runs by. */
static uint64_t mixed(uint64_t sum, const void *data, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) sum = (sum ^ ((const uint8_t *)data)[i]) * 1099511628211u;
    return sum;
}

/* The state of a sequence, and then any bytes in its place. */
static void change_state(iq_context *context, input *in) {
    const int32_t seq = take_id(in, N_SEQ);
    const uint32_t length = take_u8(in) % 8;
    const uint64_t bytes = iq_seq_state_bytes(context, length);
    if (bytes > ARENA) return;
    uint8_t *state = malloc(bytes ? bytes : 1); /* exactly: a write beyond it is found */
    if (!state) __builtin_trap();
    (void)iq_seq_export(context, seq, length, state, bytes, NULL);
    take_bytes(in, state, take_u8(in) % 2 ? bytes : 0);
    (void)iq_seq_import(context, seq, length, state, bytes, NULL);
    free(state);
}

static uint64_t run_steps(iq_context *context, uint32_t n_cols, input *in) {
    float *output = malloc((size_t)N_BATCH * n_cols * sizeof *output);
    if (!output) __builtin_trap();
    uint64_t sum = 0;
    for (int step = 0; step < 4; step++) {
        int32_t token[N_BATCH], seq[N_BATCH];
        uint8_t want[N_BATCH];
        for (int i = 0; i < N_BATCH; i++) {
            token[i] = take_id(in, 8), seq[i] = take_id(in, N_SEQ), want[i] = take_u8(in) & 1;
        }
        const iq_batch batch = {.n_tokens = (uint32_t)take_id(in, N_BATCH) + 1,
                                .token = token,
                                .seq = seq,
                                .want = take_u8(in) & 1 ? want : NULL,
                                .way = take_u8(in) % 4};
        memset(output, 0, (size_t)N_BATCH * n_cols * sizeof *output);
        const iq_status status = iq_step(context, &batch, output, NULL);
        sum = mixed(sum, &status, sizeof status);
        if (status == IQ_OK) sum = mixed(sum, output, (size_t)N_BATCH * n_cols * sizeof *output);
        (void)iq_seq_copy(context, take_id(in, N_SEQ), take_id(in, N_SEQ), take_u8(in) % 16, NULL);
        (void)iq_seq_truncate(context, take_id(in, N_SEQ), take_u8(in), NULL);
        if (take_u8(in) % 4 == 0) change_state(context, in);
    }
    free(output);
    return sum;
}

static iq_context *take_context(const iq_program *program, input *in) {
    static const int32_t kv_types[] = {0, 1, 8, 2}; /* f32, f16, q8_0; none */
    const iq_context_params params = {.n_ctx = N_CTX,
                                      .n_batch = N_BATCH,
                                      .n_seq = N_SEQ,
                                      .n_threads = 1 + (take_u8(in) % 16 == 0), /* threads are slow to start */
                                      .kv_type = kv_types[take_u8(in) % 4]};
    iq_context *context = NULL;
    (void)iq_context_create(program, &params, &context, NULL);
    return context;
}

/* The file that weights are streamed from: whole, cut, or with its weights elsewhere. */
typedef struct {
    bool used, whole;
    uint8_t resident, cut, shift;
} stream_choice;

static const stream_choice no_stream = {.used = false};

static stream_choice take_stream_choice(input *in) {
    stream_choice choice = {.used = take_u8(in) % 16 == 0, .resident = take_u8(in)};
    choice.cut = take_u8(in), choice.shift = take_u8(in);
    choice.whole = choice.cut % 4 == 0 && choice.shift % 4 == 0;
    return choice;
}

static iq_stream *make_stream(const iq_program *program, const iq_program_spec *spec, const stream_choice *choice) {
    static int file = -1;
    static uint8_t resident[MOST_PIECES];
    if (file < 0) file = memfd_create("weights", 0);
    const size_t size = choice->whole ? ARENA : (size_t)choice->cut << 8;
    if (ftruncate(file, 0) != 0 || pwrite(file, arena, size, 0) != (ssize_t)size) __builtin_trap();
    if (iq_stream_pieces(program, PIECE_BYTES, NULL, 0) > MOST_PIECES) return NULL;
    for (size_t i = 0; i < MOST_PIECES; i++) resident[i] = choice->resident >> (i % 8) & 1;
    iq_stream_source sources[MOST_WEIGHTS];
    for (uint32_t i = 0; i < spec->n_weight; i++) {
        sources[i] = (iq_stream_source){.offset = choice->whole ? 0 : UINT64_C(77) << choice->shift % 64};
    }
    const iq_stream_file files[] = {{file, "weights"}};
    const iq_stream_spec stream = {.files = files,
                                   .sources = sources,
                                   .resident = resident,
                                   .piece_bytes = PIECE_BYTES,
                                   .n_file = 1,
                                   .n_slot = 2u + choice->cut % 2,
                                   .n_reader = 1};
    iq_stream *made = NULL;
    (void)iq_stream_create(program, &stream, &made, NULL);
    return made;
}

static void run(const iq_program *program, const iq_program_spec *spec, const stream_choice *choice, input *in) {
    const uint32_t n_cols = spec->buffers[spec->output].n_cols;
    input again = *in;
    iq_context *context = take_context(program, in);
    if (!context) return;
    const uint64_t sum = run_steps(context, n_cols, in);
    iq_context_free(context);
    iq_stream *stream = choice->used ? make_stream(program, spec, choice) : NULL;
    if (!stream) return;
    context = take_context(program, &again);
    if (!context || iq_context_use_stream(context, stream, NULL) != IQ_OK) __builtin_trap();
    if (run_steps(context, n_cols, &again) != sum && choice->whole) __builtin_trap();
    iq_context_free(context);
    iq_stream_free(stream);
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
    const stream_choice choice = take_stream_choice(&in);
    const iq_kernels *kernels;
    for (size_t i = 0; (kernels = kernels_at(i)) != NULL; i++) {
        iq_program *program = NULL;
        input rest = in;
        const stream_choice *stream = i == 0 ? &choice : &no_stream; /* it is the same for all instruction sets */
        if (iq_program_create(&spec, kernels, &program, NULL) == IQ_OK) run(program, &spec, stream, &rest);
        iq_program_free(program);
    }
    return 0;
}
