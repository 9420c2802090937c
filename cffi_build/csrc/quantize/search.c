/* Which search runs on this machine. */
#include <stdlib.h>

#include "isa/cpu.h"
#include "quantize/search_isa.h"

const iq_search *iq_search_best(void) {
    const char *asked = getenv("IQRUN_ISA");
    if (asked && strcmp(asked, "portable") == 0) return &iq_search_portable;
#ifdef IQ_X86_64
    const bool avx2 = asked && (strcmp(asked, "avx2") == 0 || strcmp(asked, "avxvnni") == 0);
    if (!avx2 && iq_cpu_has_avx512()) return &iq_search_avx512;
    if (iq_cpu_has_avx2()) return &iq_search_avx2;
#elif defined(IQ_AARCH64)
    return &iq_search_neon;
#endif
    return &iq_search_portable;
}
