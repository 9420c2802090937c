/* NEON as every ARMv8 core has it, a Raspberry Pi 4's Cortex-A72 among them. */
#include "kernel/kernel_headers.h"

#if defined(IQ_AARCH64)

#include <arm_neon.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns") /* reordering before registers are assigned spills half of them */
#endif

#define IQ_NEON_DOTPROD 0
#define IQ_NEON_I8MM 0
#include "isa/ops_neon.h"

#define KERNEL_ISA "neon"
#define KERNELS iq_kernels_neon
#define GEMV_TOKENS 4
#define MATMUL_SHAPES "kernel/matmul_neon.inc.h"
#define FLOAT_ROWS 4
#define FLOAT_TOKENS 4

#include "kernel/kernel_body.inc.h"

#endif
