/* The table of encoders. */
#include "quantize/encode.h"
#include "quantize/encoders.h"
#include "quantize/floats.h"

struct iq_encoder {
    int32_t id;
    /* one of these */
    const iq_scaled_format *scaled;
    const iq_block32_format *block32;
    void (*floats)(const float *x, size_t n, uint8_t *row);
};

/* clang-format off */
static const iq_encoder encoders[] = {
    {IQ_TYPE_F32,     .floats = iq_write_f32},
    {IQ_TYPE_F16,     .floats = iq_write_f16},
    {IQ_TYPE_BF16,    .floats = iq_write_bf16},
    {IQ_TYPE_Q4_0,    .block32 = &q4_0_block32},
    {IQ_TYPE_Q4_1,    .block32 = &q4_1_block32},
    {IQ_TYPE_Q5_0,    .block32 = &q5_0_block32},
    {IQ_TYPE_Q5_1,    .block32 = &q5_1_block32},
    {IQ_TYPE_Q6_0,    .block32 = &q6_0_block32},
    {IQ_TYPE_Q8_0,    .block32 = &q8_0_block32},
    {IQ_TYPE_IQ4_NL,  .block32 = &iq4_nl_block32},
    {IQ_TYPE_Q6_K,    .scaled = &q6_k_scaled},
    {IQ_TYPE_IQ2_K,   .scaled = &iq2_k_scaled},
    {IQ_TYPE_IQ2_KS,  .scaled = &iq2_ks_scaled},
    {IQ_TYPE_IQ2_KL,  .scaled = &iq2_kl_scaled},
    {IQ_TYPE_IQ3_K,   .scaled = &iq3_k_scaled},
    {IQ_TYPE_IQ3_KS,  .scaled = &iq3_ks_scaled},
    {IQ_TYPE_IQ4_K,   .scaled = &iq4_k_scaled},
    {IQ_TYPE_IQ4_KS,  .scaled = &iq4_ks_scaled},
    {IQ_TYPE_IQ4_KSS, .scaled = &iq4_kss_scaled},
    {IQ_TYPE_IQ5_K,   .scaled = &iq5_k_scaled},
    {IQ_TYPE_IQ5_KS,  .scaled = &iq5_ks_scaled},
    {IQ_TYPE_IQ6_K,   .scaled = &iq6_k_scaled},
};
/* clang-format on */

const iq_encoder *iq_encoder_find(int32_t id) {
    for (size_t i = 0; i < sizeof encoders / sizeof *encoders; i++) {
        if (encoders[i].id == id) return &encoders[i];
    }
    return NULL;
}

const iq_scaled_format *iq_scaled_find(int32_t id) {
    const iq_encoder *encoder = iq_encoder_find(id);
    return encoder ? encoder->scaled : NULL;
}

size_t iq_encode_scratch_bytes(const iq_encoder *encoder, size_t n_cols) {
    if (encoder->scaled) return iq_scaled_scratch_bytes(encoder->scaled, n_cols);
    return encoder->block32 ? iq_blocks32_scratch_bytes() : 0;
}

void iq_encode_row(const iq_encoder *encoder, const iq_encode_job *job, const float *x, const float *importance,
                   size_t n_cols, uint8_t *row) {
    if (encoder->scaled) iq_encode_scaled(encoder->scaled, job, x, importance, n_cols, row);
    else if (encoder->block32) iq_encode_blocks32(encoder->block32, job, x, importance, n_cols, row);
    else encoder->floats(x, n_cols, row);
}
