#include "quantize/gather.h"
#include "base/fp16.h"

#define UNINFORMED_WEIGHT 0x1p-20f

float iq_unit_of(const float *x, size_t n) {
    uint32_t largest = 0; /* bits of |x| order like the numbers */
    for (size_t i = 0; i < n; i++) {
        const uint32_t size = iq_f32_to_bits(x[i]) & 0x7fffffffu;
        largest = size > largest ? size : largest;
    }
    if (largest == 0) return 1.0f;
    const uint32_t exponent = largest >> 23; /* both the unit and its inverse stay normal */
    return iq_bits_to_f32((exponent < 1 ? 1u : exponent > 253 ? 253u : exponent) << 23);
}

static void gather_sub_block(const float *x, const float *importance, size_t sub, float inverse_unit,
                             float inverse_importance_unit, size_t lane, iq_lane_set *set) {
    float largest = 0.0f, weight = 0.0f;
    for (size_t j = 0; j < sub; j++) {
        const float value = x[j] * inverse_unit, size = value < 0.0f ? -value : value;
        const float w = importance ? importance[j] * inverse_importance_unit : 1.0f;
        set->x[j][lane] = value;
        set->w[j][lane] = w;
        largest = size > largest ? size : largest;
        weight += w;
    }
    set->largest[lane] = largest;
    if (weight > 0.0f) return;
    for (size_t j = 0; j < sub; j++) set->w[j][lane] = UNINFORMED_WEIGHT;
}

static void clear_lane(size_t sub, size_t lane, iq_lane_set *set) {
    for (size_t j = 0; j < sub; j++) set->x[j][lane] = set->w[j][lane] = 0.0f;
    set->largest[lane] = 0.0f;
}

void iq_gather(const float *x, const float *importance, size_t n_sub, size_t sub, float unit, float importance_unit,
               iq_lane_set *set) {
    for (size_t lane = 0; lane < n_sub; lane++) {
        gather_sub_block(x + lane * sub, importance ? importance + lane * sub : NULL, sub, 1.0f / unit,
                         1.0f / importance_unit, lane, set);
    }
    for (size_t lane = n_sub; lane < IQ_LANES; lane++) clear_lane(sub, lane, set);
}
