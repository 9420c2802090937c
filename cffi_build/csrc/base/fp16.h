/* IEEE half and bfloat16, in plain integer arithmetic: exact, and the same on every machine. */
#ifndef IQ_BASE_FP16_H
#define IQ_BASE_FP16_H

#include "base/platform.h"

IQ_INLINE float iq_bits_to_f32(uint32_t bits) { float v; memcpy(&v, &bits, sizeof v); return v; }
IQ_INLINE uint32_t iq_f32_to_bits(float v) { uint32_t bits; memcpy(&bits, &v, sizeof bits); return bits; }

IQ_INLINE float iq_f16_to_f32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) return iq_bits_to_f32(sign | 0x7f800000u | (rest & 0x3ffu) << 13); /* Inf, NaN */
    if (rest >= 0x0400u) return iq_bits_to_f32(sign | ((rest << 13) + 0x38000000u));
    return iq_bits_to_f32(sign | iq_f32_to_bits((float)rest * 0x1p-24f)); /* subnormal or zero */
}

/* Round to nearest, ties to even; overflow becomes Inf, NaN stays NaN (quiet). */
IQ_INLINE uint16_t iq_f32_to_f16(float v) {
    const uint32_t bits = iq_f32_to_bits(v), mag = bits & 0x7fffffffu;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    if (mag > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (mag >> 13 & 0x3ffu));
    if (mag >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (mag < 0x38800000u) { /* below the smallest normal: adding 0.5 rounds to units of 2^-24 */
        return (uint16_t)(sign | (iq_f32_to_bits(iq_bits_to_f32(mag) + 0.5f) - 0x3f000000u));
    }
    return (uint16_t)(sign | (mag - 0x38000000u + 0x0fffu + (mag >> 13 & 1u)) >> 13);
}

IQ_INLINE float iq_bf16_to_f32(uint16_t h) { return iq_bits_to_f32((uint32_t)h << 16); }

IQ_INLINE uint16_t iq_f32_to_bf16(float v) {
    const uint32_t bits = iq_f32_to_bits(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

#endif
