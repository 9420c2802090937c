/* AVX2 with FMA and F16C: Intel since Haswell, AMD since Zen (Excavator). */
#include "kernel/kernel_headers.h"

#if defined(IQ_X86_64)

#include <immintrin.h>

IQ_TARGET_BEGIN("avx2,fma,f16c")

#include "isa/ops_avx2.h"

#define KERNEL_ISA "avx2"
#define KERNELS iq_kernels_avx2
#define GEMV_TOKENS 4
#define MATMUL_SHAPES "kernel/matmul_avx2.inc.h"
#define FLOAT_ROWS 3
#define FLOAT_TOKENS 4

#include "kernel/kernel_body.inc.h"

IQ_TARGET_END

#endif
