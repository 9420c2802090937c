/* What this CPU and operating system run. */
#ifndef IQ_ISA_CPU_H
#define IQ_ISA_CPU_H

#include "base/platform.h"

#if defined(IQ_X86_64)
bool iq_cpu_has_avx2(void);   /* AVX2, FMA, F16C, and the OS saves the upper halves of the registers */
bool iq_cpu_has_avx512(void); /* the above and AVX-512 F, BW, DQ, VL, VNNI, VBMI (Ice Lake, Zen 4 and later) */
#elif defined(IQ_AARCH64)
bool iq_cpu_has_dotprod(void); /* the instructions sdot and udot */
bool iq_cpu_has_i8mm(void);    /* these and smmla */
#endif

#endif
