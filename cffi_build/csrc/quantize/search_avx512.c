/* The search with AVX-512. */
#include "quantize/search_isa.h"

#ifdef IQ_X86_64
#include <immintrin.h>

IQ_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl")
#include "quantize/lanes_avx512.h"
#include "quantize/search.inc.h"
IQ_TARGET_END

static const iq_feedback feedback = {add_errors, encode_panel, measure_panel};
const iq_search iq_search_avx512 = {solve_shared, solve_scales, solve_ranges, &feedback};
#endif
