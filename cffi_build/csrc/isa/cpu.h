/* What this CPU and operating system run. */
#ifndef IQ_ISA_CPU_H
#define IQ_ISA_CPU_H

#include "base/platform.h"

/* gcc before 11 and clang before 12 do not know AVX-VNNI: what they build lacks that level. */
#if defined(IQ_X86_64) && defined(__has_include)
#if __has_include(<avxvnniintrin.h>)
#define IQ_BUILDS_AVXVNNI 1
#endif
#endif

#if defined(IQ_X86_64)
bool iq_cpu_has_avx2(void);    /* AVX2, FMA, F16C, and the OS saves the upper halves of the registers */
bool iq_cpu_has_avxvnni(void); /* the above and AVX-VNNI (Alder Lake, Zen 5 and later) */
bool iq_cpu_has_avx512(void);  /* AVX2 and AVX-512 F, BW, DQ, VL, VNNI, VBMI (Ice Lake, Zen 4 and later) */
#elif defined(IQ_AARCH64)
bool iq_cpu_has_dotprod(void); /* the instructions sdot and udot */
bool iq_cpu_has_i8mm(void);    /* these and smmla */
#endif

#endif
