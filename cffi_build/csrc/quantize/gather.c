#include "quantize/gather.h"
#include "base/fp16.h"

#define FAINT_WEIGHT 0x1p-20f /* of the most important weight */

/* Bits of the largest |x|: they order like the numbers. */
static uint32_t largest_bits(const float *x, size_t n) {
    int32_t most[IQ_LANES] = {0}, largest = 0; /* side by side, for the compiler's vectors */
    size_t i = 0;
    for (; i + IQ_LANES <= n; i += IQ_LANES) {
        for (size_t j = 0; j < IQ_LANES; j++) {
            const int32_t size = (int32_t)(iq_f32_to_bits(x[i + j]) & 0x7fffffffu);
            most[j] = size > most[j] ? size : most[j];
        }
    }
    for (; i < n; i++) {
        const int32_t size = (int32_t)(iq_f32_to_bits(x[i]) & 0x7fffffffu);
        largest = size > largest ? size : largest;
    }
    for (size_t j = 0; j < IQ_LANES; j++) largest = most[j] > largest ? most[j] : largest;
    return (uint32_t)largest;
}

float iq_unit_of(const float *x, size_t n) {
    const uint32_t largest = largest_bits(x, n);
    if (largest == 0) return 1.0f;
    const uint32_t exponent = largest >> 23; /* both the unit and its inverse stay normal */
    return iq_bits_to_f32((exponent < 1 ? 1u : exponent > 253 ? 253u : exponent) << 23);
}

iq_frame iq_frame_of(const float *x, const float *importance, size_t n, float limit) {
    const float unit = iq_unit_of(x, n), most = iq_unit_of(&limit, 1);
    return (iq_frame){limit, unit < most ? unit : most, importance ? iq_unit_of(importance, n) : 1.0f};
}

/* What a sub-block's importance is multiplied with; 0 if it says nothing. Faint sub-blocks are raised: they count
 * little beside the others, but their own ratios must not be lost in rounding. */
static float importance_scale(const float *importance, size_t sub, const iq_frame *frame) {
    float most = 0.0f;
    for (size_t j = 0; j < sub; j++) most = importance[j] > most ? importance[j] : most;
    if (most == 0.0f) return 0.0f;
    if (most / frame->importance_unit >= FAINT_WEIGHT) return 1.0f / frame->importance_unit;
    return FAINT_WEIGHT / iq_unit_of(&most, 1);
}

static void gather_importance(const float *importance, size_t sub, const iq_frame *frame, size_t lane,
                              iq_lane_set *set) {
    const float scale = importance_scale(importance, sub, frame);
    for (size_t j = 0; j < sub; j++) set->w[j][lane] = scale > 0.0f ? importance[j] * scale : FAINT_WEIGHT;
}

/* Brings the weights into the frame and notes each lane's extreme: down the lanes, for the compiler's vectors. */
static void frame_weights(size_t sub, const iq_frame *frame, iq_lane_set *set) {
    const float limit = frame->limit, inverse_unit = 1.0f / frame->unit;
    float lowest[IQ_LANES] = {0.0f}, highest[IQ_LANES] = {0.0f};
    for (size_t j = 0; j < sub; j++) {
        for (size_t lane = 0; lane < IQ_LANES; lane++) {
            float x = set->x[j][lane];
            x = x > limit ? limit : x;
            x = (x < -limit ? -limit : x) * inverse_unit;
            set->x[j][lane] = x;
            lowest[lane] = x < lowest[lane] ? x : lowest[lane];
            highest[lane] = x > highest[lane] ? x : highest[lane];
        }
    }
    for (size_t lane = 0; lane < IQ_LANES; lane++) {
        set->extreme[lane] = highest[lane] < -lowest[lane] ? lowest[lane] : highest[lane];
    }
}

/* Sub-block after sub-block into lane after lane; `sub` is a constant where this is inlined. */
IQ_INLINE void turn_weights(const float *x, size_t n_sub, size_t sub, iq_lane_set *set) {
    for (size_t lane = 0; lane < n_sub; lane++) {
        for (size_t j = 0; j < sub; j += 4) {
            const float *from = x + lane * sub + j;
            set->x[j][lane] = from[0];
            set->x[j + 1][lane] = from[1];
            set->x[j + 2][lane] = from[2];
            set->x[j + 3][lane] = from[3];
        }
    }
}

/* What lanes beyond the last sub-block hold, and what no importance means. */
static void set_defaults(size_t n_sub, size_t sub, iq_lane_set *set) {
    for (size_t j = 0; j < sub; j++) {
        for (size_t lane = 0; lane < IQ_LANES; lane++) set->w[j][lane] = lane < n_sub ? 1.0f : 0.0f;
        for (size_t lane = n_sub; lane < IQ_LANES; lane++) set->x[j][lane] = 0.0f;
    }
}

void iq_gather(const float *x, const float *importance, size_t n_sub, size_t sub, const iq_frame *frame,
               iq_lane_set *set) {
    set_defaults(n_sub, sub, set);
    if (sub == IQ_SUB_MOST)
        turn_weights(x, n_sub, IQ_SUB_MOST, set);
    else
        turn_weights(x, n_sub, IQ_SUB_MOST / 2, set);
    for (size_t lane = 0; lane < n_sub && importance; lane++) {
        gather_importance(importance + lane * sub, sub, frame, lane, set);
    }
    frame_weights(sub, frame, set);
}
