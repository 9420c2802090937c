/* iqrun: the whole API of the native core.
 *
 * This header is read by people and compiled against iqrun.cdef.h, the part of it that cffi sees.
 *
 * Rules that hold everywhere:
 *   - A function that can fail returns iq_status and, if `error` is not NULL, leaves one sentence in it.
 *     On failure no output was changed unless the function says otherwise.
 *   - Nothing aborts, prints, installs signal handlers or keeps mutable global state (but see the map guard).
 *   - All integers in files are little endian; so is every machine that this core supports.
 *   - Pointers into a mapped file may have any alignment.
 */
#ifndef IQRUN_H
#define IQRUN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ------------------------------------------------------------------------------------------------- */

typedef enum {
    IQ_OK = 0,
    IQ_ERR_ARGUMENT,    /* the caller's mistake: a size, an index, a null pointer */
    IQ_ERR_MEMORY,      /* an allocation failed; the object is unchanged */
    IQ_ERR_FORMAT,      /* the data (file, weights) is not what it must be */
    IQ_ERR_UNSUPPORTED, /* well-formed, but this build or machine cannot do it */
    IQ_ERR_KV_FULL,     /* no free KV block is left for this step */
    IQ_ERR_CANCELLED,   /* iq_context_cancel was called during the step */
    IQ_ERR_THREAD,      /* the operating system refused a thread */
    IQ_ERR_READ,        /* a file could not be read */
} iq_status;

#define IQ_ERROR_TEXT_BYTES 256

typedef struct {
    char text[IQ_ERROR_TEXT_BYTES]; /* NUL-terminated UTF-8, one sentence */
} iq_error;

/* ---- container: the one loop of the file reader that is too slow in Python ------------------------------------ */

/* Walks `count` GGUF strings (u64 length, then bytes) from `offset`; offsets[i] is where string i's length field
 * stands, offsets[count] is the end. IQ_ERR_FORMAT names the first string that runs past `size`. */
iq_status iq_scan_strings(const void *data, uint64_t size, uint64_t offset, uint64_t count, uint64_t *offsets,
                          iq_error *error);

/* ---- sampling: what looks at a whole vocabulary, and what comes after it for every token ------------------------- */

/* Places of the k largest of n logits, best first; of equal ones the first is the better. n is below 2^32. Returns how
 * many there are: k, or n if that is less. With a NaN among the logits it is the place of that NaN alone. */
size_t iq_top_k(const float *logits, size_t n, size_t k, int64_t *places);

/* Samplers that keep a head of logits which stand best first, or scale them. */
typedef enum {
    IQ_NARROW_TOP_P = 0,   /* the shortest head whose probabilities sum to at least the value */
    IQ_NARROW_MIN_P,       /* those at least `value` times as probable as the best */
    IQ_NARROW_TEMPERATURE, /* divides them by the value; where that is 0, or too small, the best stays alone */
} iq_narrow_kind;

typedef struct {
    int32_t kind; /* iq_narrow_kind */
    double value;
} iq_narrow_step;

/* Takes n logits, best first and the best of them finite, through samplers, in place. Returns how many are left. */
size_t iq_narrow(double *logits, size_t n, const iq_narrow_step *steps, size_t n_steps);

/* A place among n logits, best first, drawn with probability proportional to exp(logit); uniform is in [0, 1). */
size_t iq_draw(const double *logits, size_t n, double uniform);

/* ---- map guard: opt-in; the only function that touches a signal, and the only process-wide state ----------------- */

/* Handles SIGBUS inside watched maps (a file that is cut short while it is mapped) by putting zeros there; any other
 * SIGBUS goes to the handler that was there before. Once per process, before the files are opened. */
iq_status iq_map_guard_install(iq_error *error);

/* Watches a map; -1 if the guard is not installed or has no slot left. Any thread. */
int32_t iq_map_guard_watch(const void *data, size_t bytes);
int iq_map_guard_broken(int32_t slot); /* whether zeros stand where the file was; 0 for slot -1 */
void iq_map_guard_forget(int32_t slot);

/* ---- formats -------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t id;              /* ggml type id, as stored in GGUF */
    int32_t file_type;       /* general.file_type of a file made mostly of it; -1 if there is none */
    const char *name;        /* lower case: "iq3_k" */
    uint32_t block_weights;  /* weights per block: 1, 32 or 256 */
    uint32_t block_bytes;
    uint32_t row_meta_bytes; /* bytes in front of each row's blocks */
    int32_t can_encode;      /* 1 if iq_quantize_rows accepts it */
} iq_format_info;

size_t iq_format_count(void);
const iq_format_info *iq_format_at(size_t index);    /* NULL past the end */
const iq_format_info *iq_format_find(int32_t id);    /* NULL if unknown */

/* row_meta_bytes + n_cols / block_weights * block_bytes; 0 if the id is unknown, n_cols is 0, not a multiple of
 * block_weights, or the product overflows. */
uint64_t iq_row_bytes(int32_t id, uint64_t n_cols);

/* Decodes n_rows rows of `src` to float32, row after row. */
iq_status iq_dequantize_rows(int32_t id, const void *src, size_t n_rows, size_t n_cols, float *dst, iq_error *error);

/* How hard the encoder searches. */
typedef enum { IQ_EFFORT_FAST = 0, IQ_EFFORT_NORMAL = 1, IQ_EFFORT_BEST = 2 } iq_effort;

/* Encodes n_rows rows, each on its own: the same bytes however rows are dealt to threads. `importance` is NULL or
 * n_cols weights >= 0 for the squared error of each column. A NaN or Inf in `src`, or a NaN, Inf or negative
 * importance, is IQ_ERR_FORMAT naming row and column. */
iq_status iq_quantize_rows(int32_t id, const float *src, size_t n_rows, size_t n_cols, const float *importance,
                           iq_effort effort, void *dst, iq_error *error);

/* The same with error feedback, for types whose sub-blocks share a scale. Columns are in the type's feedback order: place i
 * of each superblock holds column order[i]; `order` has 256 entries. */
iq_status iq_feedback_order(int32_t id, uint8_t *order, iq_error *error);

/* `feedback` is float32 (n_cols, n_cols): what the error of column i adds to the target of column c; `curvature` is
 * n_cols weights > 0 for the squared error of each column. On the first pass (again = 0) only feedback[i][c] with i < c
 * is read; a later pass starts from the codes in `rows` and replaces those of a superblock where that lowers the loss.
 * loss[r] receives row r's. Rows are encoded each on its own. */
iq_status iq_feedback_rows(int32_t id, const float *weights, size_t n_rows, size_t n_cols, const float *feedback,
                           const float *curvature, iq_effort effort, int again, void *rows, float *loss,
                           iq_error *error);

/* ---- kernels: one table per instruction set --------------------------------------------------------------------- */

typedef struct iq_kernels iq_kernels;

/* The table by name (portable, avx2, avxvnni, avx512, neon, neon_dotprod, neon_i8mm) or, with NULL or "", the best one
 * that this CPU and operating system run. Unknown, not built in or not runnable here: IQ_ERR_UNSUPPORTED. */
iq_status iq_kernels_find(const char *isa, const iq_kernels **kernels, iq_error *error);
const char *iq_kernels_isa(const iq_kernels *kernels);

/* The index-th instruction set built into this library, best first (NULL past the end); whether it runs here. */
const char *iq_isa_at(size_t index);
int iq_isa_runs_here(const char *isa);

/* Compares every entry of the table with the portable one on fixed, extreme inputs (microseconds). */
iq_status iq_kernels_self_test(const iq_kernels *kernels, iq_error *error);

/* y[t][r] = sum_c W[r][c] x[t][c] by the table's kernels, one thread: for tests and benchmarks. x is float32
 * (n_tokens, n_cols) and is quantized as the engine does it; y is float32 (n_tokens, n_rows). */
iq_status iq_matmul(const iq_kernels *kernels, int32_t id, const void *rows, size_t n_rows, size_t n_cols,
                    const float *x, size_t n_tokens, float *y, iq_error *error);

/* Reads `bytes` bytes `repeats` times with n_threads threads; best seconds for one pass in *seconds. */
iq_status iq_measure_read(const void *data, size_t bytes, int32_t n_threads, int32_t repeats, double *seconds,
                          iq_error *error);

/* ---- program: what an architecture writes ------------------------------------------------------------------------ */

#define IQ_OP_SLOTS 4

typedef enum {
    IQ_OP_EMBED = 0,    /* dst0 = row token[t] of weight0, times f[0] */
    IQ_OP_SELECT,       /* dst0 (output rows) = the rows of src0 (token rows) whose output is wanted */
    IQ_OP_RMS_NORM,     /* dst0 = src0 / sqrt(mean(src0^2) + f[0]) * weight0, each group of head_dim columns alone */
    IQ_OP_MATMUL,       /* dst_i = weight_i src0 (+ bias_i), or dst_i += with IQ_FLAG_ADD, for i < n */
    IQ_OP_GATED_MATMUL, /* dst0 = silu(weight0 src0 + bias0) * (weight1 src0 + bias1) */
    IQ_OP_ROPE_TABLE,   /* dst0 = cos then sin of pos * weight0[i], times f[0]; n_rot columns */
    IQ_OP_ROPE,         /* dst0, in place: the first n_rot of each head's head_dim columns turned by table src0 */
    IQ_OP_ATTENTION,    /* append src1 (k), src2 (v) to the KV cache of `layer`; dst0 = softmax(f[0] q k^T) v */
    IQ_OP_ADD,          /* dst0 += src0 */
    IQ_OP_ROUTE,        /* dst0, dst1 = the experts with the highest scores in src0 (best first), and their shares */
    IQ_OP_DEAL,         /* dst0 = a copy of the row of src0 for each expert that it goes to, ordered by expert */
    IQ_OP_COLLECT,      /* dst0 += sum of share * row of src0 over the experts of each row; src1 = shares */
    IQ_OP_KINDS
} iq_op_kind;

enum {
    IQ_FLAG_ADD = 1,         /* MATMUL: add to dst instead of replacing it (the residual stream) */
    IQ_FLAG_ROPE_HALVES = 2, /* ROPE: pair column i with i + n_rot/2 (NeoX) instead of 2i with 2i+1 */
    IQ_FLAG_NORM_SHARES = 4, /* ROUTE: the chosen experts' shares add up to f[0]; else they are f[0] times softmax */
};

typedef struct {
    int32_t kind;                /* iq_op_kind */
    int32_t flags;
    int32_t n;                   /* number of weights in use */
    int32_t layer;               /* KV layer of ATTENTION, else -1 */
    int32_t dst[IQ_OP_SLOTS];    /* buffer indices; -1 = none */
    int32_t src[IQ_OP_SLOTS];
    int32_t weight[IQ_OP_SLOTS]; /* weight indices; -1 = none */
    int32_t bias[IQ_OP_SLOTS];   /* weight indices of float32 vectors; -1 = none */
    int32_t n_head, n_head_kv, head_dim, n_rot;
    float f[IQ_OP_SLOTS];
} iq_op;

typedef struct {
    const void *data; /* borrowed: must outlive the program */
    int32_t type;     /* ggml type id */
    uint64_t n_rows, n_cols;
    uint64_t n_expert; /* 0: one matrix; else so many, of n_rows rows each, one after another */
} iq_weight;

typedef enum { IQ_ROWS_TOKENS = 0, IQ_ROWS_OUTPUTS = 1 } iq_row_domain;

typedef struct {
    uint32_t n_cols;
    int32_t domain;  /* iq_row_domain */
    uint32_t n_used; /* 0, or the experts that each token or output uses: it has a row for every one of them */
} iq_buffer;

typedef struct {
    const iq_op *ops;
    const iq_buffer *buffers;
    const iq_weight *weights;
    uint32_t n_op, n_buffer, n_weight, n_layer; /* n_layer: KV layers */
    uint32_t n_vocab;                           /* token ids are below it */
    int32_t output;                             /* index of the buffer that a step returns by default (logits) */
} iq_program_spec;

typedef struct iq_program iq_program;

/* Checks every index and shape, copies ops, buffers and weight descriptors, and plans the stages. Immutable and
 * shareable between threads and contexts afterwards. */
iq_status iq_program_create(const iq_program_spec *spec, const iq_kernels *kernels, iq_program **program,
                            iq_error *error);
void iq_program_free(iq_program *program); /* NULL is allowed; no context may be left */

/* ---- context: threads, buffers and KV cache of one running model ----------------------------------------------------- */

typedef struct {
    uint32_t n_ctx;     /* positions in the KV cache, shared by all sequences; rounded up to whole KV blocks */
    uint32_t n_batch;   /* most tokens in one step */
    uint32_t n_seq;     /* most sequences at once */
    uint32_t n_threads; /* 1 = the caller's thread only */
    int32_t kv_type;    /* ggml type id of cached K and V: f16, f32 */
    uint8_t small_pages; /* 1: memory that is not used yet takes none; 0: huge pages where they make reading faster */
} iq_context_params;

typedef struct iq_context iq_context;

/* Bytes that iq_context_create would allocate (KV cache, buffers, scratch); UINT64_MAX on overflow. */
uint64_t iq_context_bytes(const iq_program *program, const iq_context_params *params);
iq_status iq_context_create(const iq_program *program, const iq_context_params *params, iq_context **context,
                            iq_error *error);
void iq_context_free(iq_context *context); /* NULL is allowed; no step may be running */

/* How a step multiplies. Each way gives a token the same bits whatever tokens share its step; the two differ from each
 * other, because they sum in another order. With either of them named, results do not depend on how tokens were cut into
 * steps. */
typedef enum {
    IQ_STEP_AUTO = 0, /* every matmul in the faster way for its number of rows */
    IQ_STEP_DECODE,   /* as a step of one token: what verifies drafts and advances several sequences */
    IQ_STEP_PREFILL,  /* as a long prompt, but the wanted outputs as DECODE */
} iq_step_way;

typedef struct {
    uint32_t n_tokens;
    const int32_t *token; /* (n_tokens) ids below n_vocab */
    const int32_t *seq;   /* (n_tokens) sequence of each token; each is appended at its sequence's end, in order */
    const uint8_t *want;  /* (n_tokens) 1 where output is wanted; NULL = only the last token of the batch */
    int32_t way;          /* iq_step_way */
} iq_batch;

/* Evaluates the batch. `output` receives float32 (number of wanted tokens, n_cols of the output buffer).
 * On any failure the sequences are as they were before. One step at a time per context. */
iq_status iq_step(iq_context *context, const iq_batch *batch, float *output, iq_error *error);

/* The same in parts, for calibration, profiling and layer-by-layer checks: begin, run ops [first, last) in order,
 * read any buffer, end (commit != 0 keeps the appended tokens). iq_step is begin, run all, end. */
iq_status iq_step_begin(iq_context *context, const iq_batch *batch, iq_error *error);
iq_status iq_step_run(iq_context *context, uint32_t first_op, uint32_t last_op, iq_error *error);
/* Rows of a buffer, `stride` floats from one to the next; NULL: bad index. n_rows and stride may be NULL. */
const float *iq_context_buffer(const iq_context *context, int32_t buffer, uint32_t *n_rows, size_t *stride);
void iq_step_end(iq_context *context, int commit);

/* For work layer by layer: puts float32 `data` (rows, n_cols of the buffer) into a buffer of the open step; lets the next
 * iq_step_run begin at `op`, whose inputs the caller has filled. A step that sought is never kept. */
iq_status iq_step_fill(iq_context *context, int32_t buffer, const float *data, iq_error *error);
iq_status iq_step_seek(iq_context *context, uint32_t op, iq_error *error);

/* Makes the running step, if any, stop within one stage. The only call allowed from another thread during a step. */
void iq_context_cancel(iq_context *context);

/* Seconds spent in each op since the last reset, main thread's wall clock; `seconds` has n_op entries. */
void iq_context_profile(const iq_context *context, double *seconds);
void iq_context_profile_reset(iq_context *context, int enabled);

/* ---- sequences of a context --------------------------------------------------------------------------------------------- */

uint32_t iq_seq_length(const iq_context *context, int32_t seq); /* tokens cached; 0 if seq is out of range */
uint32_t iq_kv_free(const iq_context *context);                 /* positions in free KV blocks */

/* Keeps only the first `length` tokens. */
iq_status iq_seq_truncate(iq_context *context, int32_t seq, uint32_t length, iq_error *error);

/* Makes dst hold the first `length` tokens of src; whole KV blocks are shared, a part block is copied. */
iq_status iq_seq_copy(iq_context *context, int32_t src, int32_t dst, uint32_t length, iq_error *error);

/* The state of a sequence: the cached keys, then values, of each layer, as [KV head][position][head_dim] of the cache's
 * type. It is the same whatever n_ctx, n_seq and threads; any context of the same program and kv_type takes it. */

/* Bytes of the state of `length` tokens; UINT64_MAX on overflow. */
uint64_t iq_seq_state_bytes(const iq_context *context, uint32_t length);

/* Writes the state of the first `length` tokens to `data`, which has `bytes` bytes: exactly those of its size. */
iq_status iq_seq_export(iq_context *context, int32_t seq, uint32_t length, void *data, size_t bytes, iq_error *error);

/* Replaces the sequence by `length` tokens with this state. Any values are safe to run with: a NaN among them comes out
 * as NaN logits of this sequence alone. */
iq_status iq_seq_import(iq_context *context, int32_t seq, uint32_t length, const void *data, size_t bytes,
                        iq_error *error);

/* ---- streaming: weights that are larger than memory ------------------------------------------------------------------ */

/* Consecutive rows of a matrix: what is read at once, and either kept in memory (resident) or read in every step. */
typedef struct {
    int32_t weight;
    uint32_t first_row, n_rows; /* of all matrices of the weight, if it has experts */
    float share;                /* of the tokens that use it: 1, but of an expert's */
    uint64_t bytes;             /* memory that it takes */
} iq_piece;

/* The pieces of some piece_bytes that a program's matmuls are read in, in the order of a step. Returns how many there are
 * and fills in the first `capacity`. Vectors are part of the program; rows of an embedding are read one by one. */
size_t iq_stream_pieces(const iq_program *program, uint64_t piece_bytes, iq_piece *pieces, size_t capacity);

typedef struct {
    int32_t descriptor; /* borrowed, opened for reading; with O_DIRECT the page cache stays out of it */
    const char *name;   /* borrowed, for messages */
} iq_stream_file;

typedef struct {
    int32_t file;    /* index; -1: not in a file, which only a vector may be */
    uint64_t offset; /* of the weight's first byte */
} iq_stream_source;

typedef struct {
    const iq_stream_file *files;
    const iq_stream_source *sources; /* per weight of the program */
    const uint8_t *resident;         /* per piece: 1 = kept */
    uint64_t piece_bytes;            /* as it was for iq_stream_pieces */
    uint32_t n_file;
    uint32_t n_slot;   /* pieces that may be in memory without being resident; at least 2 */
    uint32_t n_reader; /* threads that read ahead */
} iq_stream_spec;

typedef struct iq_stream iq_stream;

/* Reserves the memory (n_slot times the largest piece, and all resident ones) and starts to read ahead.
 * IQ_ERR_UNSUPPORTED on systems other than Linux. */
iq_status iq_stream_create(const iq_program *program, const iq_stream_spec *spec, iq_stream **stream, iq_error *error);
void iq_stream_free(iq_stream *stream); /* NULL is allowed; no context that uses it may be left */

/* Makes a context take its weights from a stream of the same program. Several may share one; they take turns: a step that
 * meets another one is IQ_ERR_ARGUMENT. A failed read ends the step with IQ_ERR_READ, and the next step tries again. */
iq_status iq_context_use_stream(iq_context *context, iq_stream *stream, iq_error *error);

/* Reads the next resident pieces, some max_bytes, so that the first step need not wait for them; *left is 0 at the end. */
iq_status iq_stream_load(iq_stream *stream, uint64_t max_bytes, uint64_t *left, iq_error *error);

/* Makes resident pieces streamed ones, experts first, until `bytes` are free or none is left; *freed says how many are. */
iq_status iq_stream_shrink(iq_stream *stream, uint64_t bytes, uint64_t *freed, iq_error *error);

uint64_t iq_stream_bytes_read(const iq_stream *stream); /* from the files, so far */

/* Takes these bytes out of all caches, as a stream does with used weights where a disk is the faster for it; nothing on
 * processors other than x86-64. */
void iq_evict(const void *data, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
