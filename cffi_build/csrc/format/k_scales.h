/* The 12 bytes that hold 8 scales and 8 mins of 6 bits each in Q4_K and Q5_K.
 *
 *   bytes 0..3   bits 0..5: scale 0..3    bits 6..7: upper two bits of scale 4..7
 *   bytes 4..7   bits 0..5: min 0..3      bits 6..7: upper two bits of min 4..7
 *   bytes 8..11  low nibble: scale 4..7   high nibble: min 4..7 */
#ifndef IQ_FORMAT_K_SCALES_H
#define IQ_FORMAT_K_SCALES_H

#include "base/platform.h"

/* Scale of sub-block sb (0..7): 0..63. */
IQ_INLINE int k_scale(const uint8_t s[12], int sb) {
    return sb < 4 ? s[sb] & 63 : (s[sb + 4] & 15) | s[sb - 4] >> 6 << 4;
}

/* Min of sub-block sb (0..7): 0..63. */
IQ_INLINE int k_min(const uint8_t s[12], int sb) { return sb < 4 ? s[sb + 4] & 63 : s[sb + 4] >> 4 | s[sb] >> 6 << 4; }

#endif
