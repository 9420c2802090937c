/* What search_<isa>.c include before their target region, and export. */
#ifndef IQ_QUANTIZE_SEARCH_ISA_H
#define IQ_QUANTIZE_SEARCH_ISA_H

#include "base/fp16.h"
#include "quantize/feedback.h"
#include "quantize/search.h"

extern const iq_search iq_search_portable;
#ifdef IQ_X86_64
extern const iq_search iq_search_avx2, iq_search_avx512;
#elif defined(IQ_AARCH64)
extern const iq_search iq_search_neon;
#endif

#endif
