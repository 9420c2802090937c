/* The matmul shapes of NEON (MATMUL_SHAPES of kernel_neon*.c) */
#include "kernel/gemv_neon_shape.inc.h"

#include "kernel/gemm_neon_shape.inc.h"
