/* The matmul shapes of AVX2 (MATMUL_SHAPES of kernel_avx2.inc.h): more for few tokens, and who takes them. */
#include "kernel/gemv_shape.inc.h"

#include "kernel/gemv_avx2_shape.inc.h"

#include "kernel/ints_avx2.inc.h"
#include "kernel/ints_avx2_formats.inc.h"

#include "kernel/gemm_shape.inc.h"

#define GEMV(name, task) gemv_##name(task)
#define GEMV_FLOAT_SCALES(name)                                                                                        \
    IQ_INLINE void gemv_##name(const iq_matmul_task *task) { gemv_shape(unpacker_##name, task); }
#define GEMV_INT_SCALES(name)                                                                                          \
    IQ_INLINE void gemv_##name(const iq_matmul_task *task) { gemv_ints_shape(unpacker_##name, ints_##name, task); }

#if defined(IQ_AVX_VNNI)
GEMV_FLOAT_SCALES(q8_0)
#else
#include "kernel/gemv_avx2_q8_0.inc.h"
#endif
GEMV_FLOAT_SCALES(q4_0)
GEMV_FLOAT_SCALES(q4_1)
GEMV_FLOAT_SCALES(q5_0)
GEMV_FLOAT_SCALES(q5_1)
GEMV_FLOAT_SCALES(q6_0)
GEMV_FLOAT_SCALES(q2_k)
GEMV_FLOAT_SCALES(q3_k)
GEMV_FLOAT_SCALES(iq4_nl)
GEMV_FLOAT_SCALES(iq4_xs)
GEMV_FLOAT_SCALES(iq2_kl)
GEMV_FLOAT_SCALES(iq4_kss)
GEMV_INT_SCALES(iq2_k)
GEMV_INT_SCALES(iq2_ks)
GEMV_INT_SCALES(iq3_k)
GEMV_INT_SCALES(iq3_ks)
GEMV_INT_SCALES(iq4_k)
GEMV_INT_SCALES(iq4_ks)
GEMV_INT_SCALES(iq5_k)
GEMV_INT_SCALES(iq5_ks)
GEMV_INT_SCALES(iq6_k)
GEMV_INT_SCALES(q4_k)
GEMV_INT_SCALES(q5_k)
GEMV_INT_SCALES(q6_k)
