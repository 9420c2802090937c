/* The tables of this build; kernel/dispatch.c knows them all. */
#ifndef IQ_KERNEL_TABLES_H
#define IQ_KERNEL_TABLES_H

#include "kernel/kernels.h"

extern const iq_kernels iq_kernels_portable;
#if defined(IQ_X86_64)
extern const iq_kernels iq_kernels_avx2, iq_kernels_avxvnni, iq_kernels_avx512;
#elif defined(IQ_AARCH64)
extern const iq_kernels iq_kernels_neon, iq_kernels_neon_dotprod, iq_kernels_neon_i8mm;
#endif

#endif
