/* NEON with sdot and smmla: Cortex-A710, Neoverse V1 (Graviton 3), Apple's M2 and later. */
#include "kernel/kernel_headers.h"

#if defined(IQ_AARCH64)

#include <arm_neon.h>

#if defined(__clang__)
IQ_TARGET_BEGIN("dotprod,i8mm")
#else
IQ_TARGET_BEGIN("arch=armv8.2-a+dotprod+i8mm")
#endif

#define IQ_NEON_DOTPROD 1
#define IQ_NEON_I8MM 1
#define KERNEL_ISA "neon_i8mm"
#define KERNELS iq_kernels_neon_i8mm
#include "kernel/kernel_neon.inc.h"

IQ_TARGET_END

#endif
