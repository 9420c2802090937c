/* Which kernel tables are built in, which run here, and the choice among them. */
#include "isa/cpu.h"
#include "kernel/tables.h"

#include <stdio.h>

static bool always(void) { return true; }

typedef struct {
    const iq_kernels *kernels;
    bool (*runs_here)(void);
} built_isa;

/* Best first. */
static const built_isa built[] = {
#if defined(IQ_X86_64)
    {&iq_kernels_avx512, iq_cpu_has_avx512},
#if defined(IQ_BUILDS_AVXVNNI)
    {&iq_kernels_avxvnni, iq_cpu_has_avxvnni},
#endif
    {&iq_kernels_avx2, iq_cpu_has_avx2},
#elif defined(IQ_AARCH64)
    {&iq_kernels_neon_i8mm, iq_cpu_has_i8mm},
    {&iq_kernels_neon_dotprod, iq_cpu_has_dotprod},
    {&iq_kernels_neon, always},
#endif
    {&iq_kernels_portable, always},
};

#define N_BUILT (sizeof built / sizeof *built)

static const built_isa *find(const char *isa) {
    for (size_t i = 0; i < N_BUILT; i++) {
        if (strcmp(built[i].kernels->isa, isa) == 0) return &built[i];
    }
    return NULL;
}

/* "avx2, portable" */
static void list_usable(char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < N_BUILT && used < size; i++) {
        if (!built[i].runs_here()) continue;
        const int n = snprintf(text + used, size - used, "%s%s", used ? ", " : "", built[i].kernels->isa);
        used += n > 0 ? (size_t)n : 0;
    }
}

iq_status iq_kernels_find(const char *isa, const iq_kernels **kernels, iq_error *error) {
    if (!kernels) return iq_fail(error, IQ_ERR_ARGUMENT, "iq_kernels_find needs a place for its result");
    if (!isa || !*isa) {
        size_t i = 0;
        while (!built[i].runs_here()) i++; /* portable, the last, always does */
        *kernels = built[i].kernels;
        return IQ_OK;
    }
    const built_isa *entry = find(isa);
    if (entry && entry->runs_here()) {
        *kernels = entry->kernels;
        return IQ_OK;
    }
    char usable[96];
    list_usable(usable, sizeof usable);
    return iq_fail(error, IQ_ERR_UNSUPPORTED, "instruction set \"%.32s\" %s; choose one of: %s (or none, for the best)",
                   isa, entry ? "does not run on this machine" : "is not built into this library", usable);
}

const char *iq_kernels_isa(const iq_kernels *kernels) { return kernels->isa; }

const char *iq_isa_at(size_t index) { return index < N_BUILT ? built[index].kernels->isa : NULL; }

int iq_isa_runs_here(const char *isa) {
    const built_isa *entry = isa ? find(isa) : NULL;
    return entry && entry->runs_here();
}

const iq_format_kernels *iq_format_kernels_find(const iq_kernels *kernels, int32_t type) {
    for (size_t i = 0; i < kernels->n_formats; i++) {
        if (kernels->formats[i].type == type) return &kernels->formats[i];
    }
    return NULL;
}
