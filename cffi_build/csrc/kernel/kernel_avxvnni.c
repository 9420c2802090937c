/* AVX2 with AVX-VNNI, for CPUs without AVX-512: Intel's Alder Lake, N100, Meteor, Arrow and Lunar Lake. */
#include "isa/cpu.h"
#include "kernel/kernel_headers.h"

#if defined(IQ_BUILDS_AVXVNNI)

#include <immintrin.h>

IQ_TARGET_BEGIN("avx2,fma,f16c,avxvnni")

#define IQ_AVX_VNNI 1
#define KERNEL_ISA "avxvnni"
#define KERNELS iq_kernels_avxvnni
#include "kernel/kernel_avx2.inc.h"

IQ_TARGET_END

#endif
