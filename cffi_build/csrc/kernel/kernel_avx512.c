/* AVX-512 with VNNI and VBMI: Intel since Ice Lake, AMD since Zen 4. */
#include "kernel/kernel_headers.h"

#if defined(IQ_X86_64)

#include <immintrin.h>

IQ_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx2,fma,f16c")

#include "isa/ops_avx512.h"

#define KERNEL_ISA "avx512"
#define KERNELS iq_kernels_avx512
#define GEMV_TOKENS 4
#define FEW_TOKENS 7 /* above, unpacking tiles is cheaper */
#define SHARE_PANELS
#define FLOAT_ROWS 6
#define FLOAT_TOKENS 4

#include "kernel/kernel_body.inc.h"

IQ_TARGET_END

#endif
