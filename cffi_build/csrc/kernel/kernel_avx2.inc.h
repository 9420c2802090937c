/* What the tables of AVX2 share; their files define KERNEL_ISA and KERNELS, and IQ_AVX_VNNI or not. */
#include "isa/ops_avx2.h"

#define GEMV_TOKENS 4
#define MATMUL_SHAPES "kernel/matmul_avx2.inc.h"
#define FLOAT_ROWS 3
#define FLOAT_TOKENS 4

#include "kernel/kernel_body.inc.h"
