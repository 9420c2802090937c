#include "quantize/gather.h"
#include "base/fp16.h"

#define FAINT_WEIGHT 0x1p-20f /* of the most important weight */

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

iq_frame iq_frame_of(const float *x, const float *importance, size_t n, float limit) {
    const float unit = iq_unit_of(x, n), most = iq_unit_of(&limit, 1);
    return (iq_frame){limit, unit < most ? unit : most, importance ? iq_unit_of(importance, n) : 1.0f};
}

IQ_INLINE float clamp(float x, float limit) { return x > limit ? limit : x < -limit ? -limit : x; }

/* What a sub-block's importance is multiplied with; 0 if it says nothing. Faint sub-blocks are raised: they count
 * little beside the others, but their own ratios must not be lost in rounding. */
static float importance_scale(const float *importance, size_t sub, const iq_frame *frame) {
    float most = 0.0f;
    for (size_t j = 0; importance && j < sub; j++) most = importance[j] > most ? importance[j] : most;
    if (most == 0.0f) return 0.0f;
    if (most / frame->importance_unit >= FAINT_WEIGHT) return 1.0f / frame->importance_unit;
    return FAINT_WEIGHT / iq_unit_of(&most, 1);
}

static void gather_sub_block(const float *x, const float *importance, size_t sub, const iq_frame *frame, size_t lane,
                             iq_lane_set *set) {
    const float inverse_unit = 1.0f / frame->unit, scale = importance_scale(importance, sub, frame);
    const float uniform = importance ? FAINT_WEIGHT : 1.0f;
    float largest = 0.0f;
    for (size_t j = 0; j < sub; j++) {
        const float value = clamp(x[j], frame->limit) * inverse_unit, size = value < 0.0f ? -value : value;
        set->x[j][lane] = value;
        set->w[j][lane] = scale > 0.0f ? importance[j] * scale : uniform;
        largest = size > largest ? size : largest;
    }
    set->largest[lane] = largest;
}

static void clear_lane(size_t sub, size_t lane, iq_lane_set *set) {
    for (size_t j = 0; j < sub; j++) set->x[j][lane] = set->w[j][lane] = 0.0f;
    set->largest[lane] = 0.0f;
}

void iq_gather(const float *x, const float *importance, size_t n_sub, size_t sub, const iq_frame *frame,
               iq_lane_set *set) {
    for (size_t lane = 0; lane < n_sub; lane++) {
        gather_sub_block(x + lane * sub, importance ? importance + lane * sub : NULL, sub, frame, lane, set);
    }
    for (size_t lane = n_sub; lane < IQ_LANES; lane++) clear_lane(sub, lane, set);
}
