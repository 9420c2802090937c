/* Everything that an instruction set contributes, compiled once per kernel_<isa>.c inside its target region, after its
 * ops. The file defines KERNEL_ISA (a name), GEMV_TOKENS, FLOAT_ROWS and FLOAT_TOKENS (how many its registers serve at
 * once), FEW_TOKENS (up to here tokens are not worth a tile; GEMV_TOKENS if not said), SHARE_PANELS (if those who write
 * activations shall pack them) and KERNELS (the exported table). */

#if defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define PREFETCH(p) ((void)(p))
#endif

#include "kernel/bands.inc.h"
#include "kernel/unpack.inc.h"

#define MAX_SMALL_SUPERBLOCK (SMALL_BLOCKS * sizeof(block_q8_0))

#include "kernel/unpack_iq2_k.inc.h"
#include "kernel/unpack_iq2_ks.inc.h"
#include "kernel/unpack_iq2_kl.inc.h"
#include "kernel/unpack_iq3_k.inc.h"
#include "kernel/unpack_iq3_ks.inc.h"
#include "kernel/unpack_iq4_k.inc.h"
#include "kernel/unpack_iq4_ks.inc.h"
#include "kernel/unpack_iq4_kss.inc.h"
#include "kernel/unpack_iq4_nl.inc.h"
#include "kernel/unpack_iq4_xs.inc.h"
#include "kernel/unpack_iq5_k.inc.h"
#include "kernel/unpack_iq5_ks.inc.h"
#include "kernel/unpack_iq6_k.inc.h"
#include "kernel/unpack_q2_k.inc.h"
#include "kernel/unpack_q3_k.inc.h"
#include "kernel/unpack_q4_0.inc.h"
#include "kernel/unpack_q4_1.inc.h"
#include "kernel/unpack_q4_k.inc.h"
#include "kernel/unpack_q5_0.inc.h"
#include "kernel/unpack_q5_1.inc.h"
#include "kernel/unpack_q5_k.inc.h"
#include "kernel/unpack_q6_0.inc.h"
#include "kernel/unpack_q6_k.inc.h"
#include "kernel/unpack_q8_0.inc.h"

#if defined(MATMUL_SHAPES) /* an instruction set with shapes of its own */
#include MATMUL_SHAPES
#else
#include "kernel/gemv_shape.inc.h"
#include "kernel/gemm_shape.inc.h"
#endif

#include "kernel/float_matmul.inc.h"
#include "kernel/quantize_x.inc.h"
#include "kernel/float_kernels.inc.h"

#define EACH_QUANTIZED_FORMAT(f)                                                                                       \
    f(Q4_0, q4_0) f(Q4_1, q4_1) f(Q5_0, q5_0) f(Q5_1, q5_1) f(Q6_0, q6_0) f(Q8_0, q8_0) f(Q2_K, q2_k) f(Q3_K, q3_k)    \
        f(Q4_K, q4_k) f(Q5_K, q5_k) f(Q6_K, q6_k) f(IQ4_NL, iq4_nl) f(IQ4_XS, iq4_xs) f(IQ2_K, iq2_k)                  \
            f(IQ2_KS, iq2_ks) f(IQ2_KL, iq2_kl) f(IQ3_K, iq3_k) f(IQ3_KS, iq3_ks) f(IQ4_K, iq4_k) f(IQ4_KS, iq4_ks)    \
                f(IQ4_KSS, iq4_kss) f(IQ5_K, iq5_k) f(IQ5_KS, iq5_ks) f(IQ6_K, iq6_k)

#ifndef FEW_TOKENS
#define FEW_TOKENS GEMV_TOKENS
#endif

IQ_INLINE bool few_tokens(const iq_matmul_task *task) {
    return task->shape == IQ_SHAPE_AUTO ? task->n_tokens <= FEW_TOKENS : task->shape == IQ_SHAPE_FEW;
}

#ifndef GEMV
#define GEMV(name, task) gemv_shape(unpacker_##name, task)
#endif

#define DEFINE_MATMUL(id, name)                                                                                        \
    static void matmul_##name(const iq_matmul_task *task) {                                                            \
        if (few_tokens(task))                                                                                          \
            GEMV(name, task);                                                                                          \
        else if (task->n_more > 0)                                                                                     \
            each_band(task, matmul_##name);                                                                            \
        else                                                                                                           \
            gemm_shape(unpacker_##name, task);                                                                         \
    }
EACH_QUANTIZED_FORMAT(DEFINE_MATMUL)

#define FORMAT_ROW(id, name) {IQ_TYPE_##id, IQ_X_Q8, order_##name, matmul_##name},

static const iq_format_kernels format_rows[] = {{IQ_TYPE_F32, IQ_X_F32, IQ_ORDER_NATURAL, matmul_f32},
                                                {IQ_TYPE_F16, IQ_X_F32, IQ_ORDER_NATURAL, matmul_f16},
                                                {IQ_TYPE_BF16, IQ_X_F32, IQ_ORDER_NATURAL, matmul_bf16},
                                                EACH_QUANTIZED_FORMAT(FORMAT_ROW)};

const iq_kernels KERNELS = {
    .isa = KERNEL_ISA,
    .quantize_x = quantize_x,
#if defined(SHARE_PANELS)
    .panel_tokens = TILE_TOKENS,
    .panel_bytes = sizeof(panel),
    .pack_x = pack_x,
#endif
    .rms_norm = rms_norm,
    .silu_mul = silu_mul,
    .add = add,
    .rope = rope,
    .kv_store = kv_store,
    .attention = attention,
    .attention_merge = attention_merge,
    .attention_divide = attention_divide,
    .formats = format_rows,
    .n_formats = sizeof format_rows / sizeof *format_rows,
};
