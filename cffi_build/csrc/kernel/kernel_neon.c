/* NEON as every ARMv8 core has it, a Raspberry Pi 4's Cortex-A72 among them. */
#include "kernel/kernel_headers.h"

#if defined(IQ_AARCH64)

#include <arm_neon.h>

#define IQ_NEON_DOTPROD 0
#define IQ_NEON_I8MM 0
#define KERNEL_ISA "neon"
#define KERNELS iq_kernels_neon
#include "kernel/kernel_neon.inc.h"

#endif
