/* NEON with sdot: a Raspberry Pi 5's Cortex-A76, Apple's cores, Graviton 2 and later. */
#include "kernel/kernel_headers.h"

#if defined(IQ_AARCH64)

#include <arm_neon.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-schedule-insns") /* reordering before registers are assigned spills half of them */
#endif

#if defined(__clang__)
IQ_TARGET_BEGIN("dotprod")
#else
IQ_TARGET_BEGIN("arch=armv8.2-a+dotprod")
#endif

#define IQ_NEON_DOTPROD 1
#define IQ_NEON_I8MM 0
#include "isa/ops_neon.h"

#define KERNEL_ISA "neon_dotprod"
#define KERNELS iq_kernels_neon_dotprod
#define GEMV_TOKENS 4
#define MATMUL_SHAPES "kernel/matmul_neon.inc.h"
#define FLOAT_ROWS 4
#define FLOAT_TOKENS 4

#include "kernel/kernel_body.inc.h"

IQ_TARGET_END

#endif
