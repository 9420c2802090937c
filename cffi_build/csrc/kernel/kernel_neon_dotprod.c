/* NEON with sdot: a Raspberry Pi 5's Cortex-A76, Apple's cores, Graviton 2 and later. */
#include "kernel/kernel_headers.h"

#if defined(IQ_AARCH64)

#include <arm_neon.h>

#if defined(__clang__)
IQ_TARGET_BEGIN("dotprod")
#else
IQ_TARGET_BEGIN("arch=armv8.2-a+dotprod")
#endif

#define IQ_NEON_DOTPROD 1
#define IQ_NEON_I8MM 0
#define KERNEL_ISA "neon_dotprod"
#define KERNELS iq_kernels_neon_dotprod
#include "kernel/kernel_neon.inc.h"

IQ_TARGET_END

#endif
