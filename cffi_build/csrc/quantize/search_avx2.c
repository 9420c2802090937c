/* The search with AVX2. */
#include "format/codebooks.h"
#include "quantize/search_isa.h"

#ifdef IQ_X86_64
#include <immintrin.h>

IQ_TARGET_BEGIN("avx2,fma")
#include "quantize/lanes_avx2.h"
#include "quantize/search.inc.h"
IQ_TARGET_END

static const iq_feedback feedback = {add_errors, encode_panel, measure_panel};
const iq_search iq_search_avx2 = {solve_shared, solve_scales, solve_ranges, &feedback};
#endif
