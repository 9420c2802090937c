/* Plain C: runs everywhere, and defines the results. */
#include "kernel/kernel_headers.h"

/* Loops over arrays instead of registers: forced inlining would multiply them, so the compiler decides here. */
#undef IQ_INLINE
#if defined(__GNUC__)
#define IQ_INLINE __attribute__((unused)) static inline
#else
#define IQ_INLINE static inline
#endif

#include "isa/ops_portable.h"

#define KERNEL_ISA "portable"
#define KERNELS iq_kernels_portable
#define GEMV_TOKENS 4
#define FLOAT_ROWS 2
#define FLOAT_TOKENS 4

#include "kernel/kernel_body.inc.h"
