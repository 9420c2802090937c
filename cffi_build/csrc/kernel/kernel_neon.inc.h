/* What the tables of NEON share; their files define IQ_NEON_DOTPROD, IQ_NEON_I8MM, KERNEL_ISA and KERNELS. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns") /* reordering before registers are assigned spills half of them */
#endif

#include "isa/ops_neon.h"
#include "isa/ops_neon_tile.h"

#define GEMV_TOKENS 4
#define MATMUL_SHAPES "kernel/matmul_neon.inc.h"
#define FLOAT_ROWS 4
#define FLOAT_TOKENS 4

#include "kernel/kernel_body.inc.h"
