/* Compiler and platform words used everywhere; nothing here is specific to iqrun's subject. */
#ifndef IQ_BASE_PLATFORM_H
#define IQ_BASE_PLATFORM_H

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#define IQ_X86_64 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define IQ_AARCH64 1
#endif

#if UINTPTR_MAX < UINT64_MAX
#error "iqrun needs a 64-bit system: install a 64-bit Raspberry Pi OS (or other 64-bit Linux)"
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "iqrun supports little-endian machines only"
#endif

#if defined(__GNUC__)
#define IQ_INLINE static inline __attribute__((always_inline, unused))
#define IQ_NOINLINE __attribute__((noinline))
#define IQ_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define IQ_INLINE static __forceinline
#define IQ_NOINLINE __declspec(noinline)
#define IQ_PRINTF(text, first)
#endif

/* Opens a region whose functions may use more than the baseline instruction set; include all headers before it.
 * #pragma GCC target is per file in gcc; clang needs push/pop of an attribute. Used through kernel_<isa>.c only. */
#define IQ_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define IQ_TARGET_BEGIN(features) IQ_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define IQ_TARGET_END IQ_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define IQ_TARGET_BEGIN(features) IQ_PRAGMA(GCC push_options) IQ_PRAGMA(GCC target(features))
#define IQ_TARGET_END IQ_PRAGMA(GCC pop_options)
#else
#define IQ_TARGET_BEGIN(features)
#define IQ_TARGET_END
#endif

/* Before a loop of few rounds whose index must become a constant */
#if defined(__clang__)
#define IQ_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define IQ_UNROLL _Pragma("GCC unroll 16")
#else
#define IQ_UNROLL
#endif

/* Unaligned loads from a mapped file. */
IQ_INLINE uint16_t iq_load_u16(const void *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }
IQ_INLINE uint32_t iq_load_u32(const void *p) { uint32_t v; memcpy(&v, p, sizeof v); return v; }
IQ_INLINE uint64_t iq_load_u64(const void *p) { uint64_t v; memcpy(&v, p, sizeof v); return v; }
IQ_INLINE float iq_load_f32(const void *p) { float v; memcpy(&v, p, sizeof v); return v; }

IQ_INLINE size_t iq_min_size(size_t a, size_t b) { return a < b ? a : b; }
IQ_INLINE size_t iq_round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

#endif
