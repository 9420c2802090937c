/* e^x of 16 floats, relative error below 2^-22. Results below the smallest normal float are 0, above the largest Inf;
 * NaN is kept.
 *
 * x = n ln 2 + r with |r| <= ln 2 / 2; e^x = 2^n (1 + r + r^2 P(r)). ln 2 is subtracted in two parts, the first with
 * so few bits that n times it is exact. P is a minimax fit: its own error stays below 2^-28. */
IQ_INLINE f32x16 f32x16_exp(f32x16 x) {
    const f32x16 least = f32x16_set1(-87.33654f), most = f32x16_set1(89.0f);
    const f32x16 y = f32x16_max(least, f32x16_min(most, x));
    const f32x16 n = f32x16_round(f32x16_mul(y, f32x16_set1(0x1.715476p+0f)));
    f32x16 r = f32x16_fma(n, f32x16_set1(-0x1.62e4p-1f), y);
    r = f32x16_fma(n, f32x16_set1(-0x1.7f7d1cp-20f), r);
    f32x16 p = f32x16_fma(f32x16_set1(0.00138145278f), r, f32x16_set1(0.00836874638f));
    p = f32x16_fma(p, r, f32x16_set1(0.0416683927f));
    p = f32x16_fma(p, r, f32x16_set1(0.166665196f));
    p = f32x16_fma(p, r, f32x16_set1(0.49999994f));
    p = f32x16_fma(f32x16_mul(r, r), p, f32x16_add(r, f32x16_set1(1.0f)));
    return f32x16_select_gt(least, x, f32x16_zero(), f32x16_scale2(p, n));
}

/* 2^x of 16 floats up to 0, relative error below 2^-22: the weights of a softmax. x above 0 counts as 0, whose result
 * is exactly 1, and x below -126 as -126; NaN is kept.
 *
 * x = n + r with |r| <= 1/2; 2^x = 2^n (1 + r P(r)), P a minimax fit of its own error 2^-23.4. */
IQ_INLINE f32x16 f32x16_exp2(f32x16 x) {
    const f32x16 y = f32x16_max(f32x16_set1(-126.0f), f32x16_min(f32x16_zero(), x));
    const f32x16 n = f32x16_round(y), r = f32x16_sub(y, n);
    f32x16 p = f32x16_fma(f32x16_set1(0x1.5bba14p-10f), r, f32x16_set1(0x1.3cea88p-7f));
    p = f32x16_fma(p, r, f32x16_set1(0x1.c6b752p-5f));
    p = f32x16_fma(p, r, f32x16_set1(0x1.ebf9bcp-3f));
    p = f32x16_fma(p, r, f32x16_set1(0x1.62e42ap-1f));
    return f32x16_raise2(f32x16_fma(p, r, f32x16_set1(1.0f)), n);
}
