/* The search with the compiler's baseline vectors: every CPU. */
#include "quantize/search_isa.h"

#include "quantize/lanes_portable.h"
#include "quantize/search.inc.h"

static const iq_feedback feedback = {add_errors, encode_panel, measure_panel};
const iq_search iq_search_portable = {solve_shared, solve_scales, solve_ranges, &feedback};
