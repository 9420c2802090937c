/* All tokens in groups of GEMV_TOKENS, the rest in one: gemv_tokens has an instance for each number. */
IQ_INLINE void gemv_shape(const unpacker f, const iq_matmul_task *task) {
    size_t t = 0;
    for (; task->n_tokens - t >= GEMV_TOKENS; t += GEMV_TOKENS) gemv_tokens(f, task, t, GEMV_TOKENS);
    switch (task->n_tokens - t) {
#if GEMV_TOKENS > 3
    case 3:
        gemv_tokens(f, task, t, 3);
        break;
#endif
#if GEMV_TOKENS > 2
    case 2:
        gemv_tokens(f, task, t, 2);
        break;
#endif
    case 1:
        gemv_tokens(f, task, t, 1);
        break;
    default:
        break;
    }
}
