/* AVX2 with FMA and F16C: Intel since Haswell, AMD since Zen (Excavator). */
#include "kernel/kernel_headers.h"

#if defined(IQ_X86_64)

#include <immintrin.h>

IQ_TARGET_BEGIN("avx2,fma,f16c")

#define KERNEL_ISA "avx2"
#define KERNELS iq_kernels_avx2
#include "kernel/kernel_avx2.inc.h"

IQ_TARGET_END

#endif
