/* The search with NEON. */
#include "format/codebooks.h"
#include "quantize/search_isa.h"

#ifdef IQ_AARCH64
#include <arm_neon.h>

#include "quantize/lanes_neon.h"
#include "quantize/search.inc.h"

static const iq_feedback feedback = {add_errors, encode_panel, measure_panel};
const iq_search iq_search_neon = {solve_shared, solve_scales, solve_ranges, &feedback};
#endif
