/* Rounding to fp16, sixteen numbers at a time. Included by search.inc.h. */

/* The fp16 number nearest to a * unit, divided by unit again: never infinite, and zero only for zero. */
IQ_INLINE lanes round_to_f16(lanes a, float unit) {
    const lanes zero = l_set(0.0f), most = l_set(65504.0f / unit), quantum = l_set(0x1p-24f / unit);
    const lanes size = l_min(l_max(a, l_sub(zero, a)), most);
    const lanes spread = l_mul(size, l_set(8193.0f)); /* 2^13 + 1 leaves eleven bits of the 24 */
    const lanes normal = l_sub(spread, l_sub(spread, size));
    const lanes steps = l_round(l_min(l_mul(size, l_set(0x1p24f * unit)), l_set(2048.0f)));
    const lanes subnormal = l_mul(l_max(steps, l_set(1.0f)), quantum);
    const lanes rounded = l_select(l_greater(l_set(0x1p-14f / unit), size), subnormal, normal);
    return l_select(l_greater(a, zero), rounded, l_select(l_greater(zero, a), l_sub(zero, rounded), zero));
}
