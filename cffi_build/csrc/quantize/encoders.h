/* The formats by name: each is described in encode_<bits>.c or encode_block32.c, next to its packing. */
#ifndef IQ_QUANTIZE_ENCODERS_H
#define IQ_QUANTIZE_ENCODERS_H

#include "quantize/blocks32.h"
#include "quantize/scaled.h"

extern const iq_scaled_format iq2_k_scaled, iq2_ks_scaled, iq2_kl_scaled, iq3_k_scaled, iq3_ks_scaled, iq4_k_scaled,
    iq4_ks_scaled, iq4_kss_scaled, iq5_k_scaled, iq5_ks_scaled, iq6_k_scaled, q6_k_scaled;

extern const iq_block32_format q4_0_block32, q4_1_block32, q5_0_block32, q5_1_block32, q6_0_block32, q8_0_block32,
    iq4_nl_block32;

const iq_scaled_format *iq_scaled_find(int32_t id); /* NULL: this type has no shared scales */

#endif
