/* Which search runs on this machine. */
#include <stdlib.h>

#include "isa/cpu.h"
#include "quantize/search_isa.h"

#ifdef IQ_X86_64
const iq_search *iq_search_best(void) {
    const char *asked = getenv("IQRUN_ISA");
    const bool portable = asked && strcmp(asked, "portable") == 0, avx2 = asked && strcmp(asked, "avx2") == 0;
    if (!portable && !avx2 && iq_cpu_has_avx512()) return &iq_search_avx512;
    if (!portable && iq_cpu_has_avx2()) return &iq_search_avx2;
    return &iq_search_portable;
}
#else
const iq_search *iq_search_best(void) { return &iq_search_portable; }
#endif
