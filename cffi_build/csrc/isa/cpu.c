/* CPUID says what the CPU can do; XGETBV says which registers the operating system saves. Both are needed. */
#include "isa/cpu.h"

#if defined(IQ_X86_64)

#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif

typedef struct {
    uint32_t eax, ebx, ecx, edx;
} cpuid_result;

/* Zeros for a leaf that the CPU does not know. */
static cpuid_result cpuid_at(uint32_t leaf, uint32_t part) {
    cpuid_result r = {0, 0, 0, 0};
#if defined(_MSC_VER)
    int v[4];
    __cpuid(v, 0);
    if ((uint32_t)v[0] < leaf) return r;
    __cpuidex(v, (int)leaf, (int)part);
    r = (cpuid_result){(uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2], (uint32_t)v[3]};
#else
    __get_cpuid_count(leaf, part, &r.eax, &r.ebx, &r.ecx, &r.edx);
#endif
    return r;
}

static cpuid_result cpuid(uint32_t leaf) { return cpuid_at(leaf, 0); }

/* XCR0; to be called only if CPUID reports OSXSAVE. */
static uint64_t saved_registers(void) {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
#endif
}

static bool has_all(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

enum {
    SAVES_AVX = 0x06,    /* XMM, YMM */
    SAVES_AVX512 = 0xe6, /* and opmask, upper halves of ZMM0..15, ZMM16..31 */
};

static bool os_saves(uint64_t registers) {
    const uint32_t osxsave = 1u << 27;
    return has_all(cpuid(1).ecx, osxsave) && (saved_registers() & registers) == registers;
}

bool iq_cpu_has_avx2(void) {
    const uint32_t fma = 1u << 12, avx = 1u << 28, f16c = 1u << 29, avx2 = 1u << 5;
    return os_saves(SAVES_AVX) && has_all(cpuid(1).ecx, fma | avx | f16c) && has_all(cpuid(7).ebx, avx2);
}

bool iq_cpu_has_avxvnni(void) {
#if defined(IQ_AVXVNNI_AS_AVX512) /* tests/c/evex_cc.sh encodes that level so */
    return iq_cpu_has_avx512();
#else
    const uint32_t avx_vnni = 1u << 4, last_part = cpuid(7).eax;
    return iq_cpu_has_avx2() && last_part >= 1 && has_all(cpuid_at(7, 1).eax, avx_vnni);
#endif
}

bool iq_cpu_has_avx512(void) {
    const uint32_t f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31; /* of ebx */
    const uint32_t vbmi = 1u << 1, vnni = 1u << 11;                           /* of ecx */
    const cpuid_result r = cpuid(7);
    return iq_cpu_has_avx2() && os_saves(SAVES_AVX512) && has_all(r.ebx, f | dq | bw | vl) &&
           has_all(r.ecx, vbmi | vnni);
}

#elif defined(IQ_AARCH64)

#if defined(__linux__)
#include <sys/auxv.h>

bool iq_cpu_has_dotprod(void) {
    const unsigned long asimddp = 1ul << 20; /* HWCAP_ASIMDDP */
    return (getauxval(AT_HWCAP) & asimddp) != 0;
}

bool iq_cpu_has_i8mm(void) {
    const unsigned long i8mm = 1ul << 13; /* HWCAP2_I8MM */
    return iq_cpu_has_dotprod() && (getauxval(AT_HWCAP2) & i8mm) != 0;
}

#elif defined(__APPLE__)
#include <sys/sysctl.h>

static bool has_feature(const char *name) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, NULL, 0) == 0 && value != 0;
}

bool iq_cpu_has_dotprod(void) { return has_feature("hw.optional.arm.FEAT_DotProd"); }
bool iq_cpu_has_i8mm(void) { return iq_cpu_has_dotprod() && has_feature("hw.optional.arm.FEAT_I8MM"); }

#else

bool iq_cpu_has_i8mm(void) { return false; }
bool iq_cpu_has_dotprod(void) { return false; } /* no way to ask: plain NEON works everywhere */

#endif

#else

typedef int iq_cpu_has_no_vector_instructions; /* an empty translation unit is not C */

#endif
