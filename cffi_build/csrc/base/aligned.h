/* Memory that begins at a multiple of 64 bytes: a cache line, and the widest vector. */
#ifndef IQ_BASE_ALIGNED_H
#define IQ_BASE_ALIGNED_H

#include <stdlib.h>

#include "base/platform.h"

#define IQ_ALIGNMENT 64

#if defined(_WIN32)

#include <malloc.h>

IQ_INLINE void *iq_aligned_alloc(size_t bytes) { return _aligned_malloc(bytes, IQ_ALIGNMENT); }
IQ_INLINE void iq_aligned_free(void *memory) { _aligned_free(memory); }

#else

/* NULL if there is not so much; `bytes` is a multiple of IQ_ALIGNMENT. */
IQ_INLINE void *iq_aligned_alloc(size_t bytes) { return aligned_alloc(IQ_ALIGNMENT, bytes); }
IQ_INLINE void iq_aligned_free(void *memory) { free(memory); }

#endif

#endif
