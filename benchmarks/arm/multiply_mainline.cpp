// As multiply.c, with llama.cpp's kernels for repacked weights: those of its ggml-cpu/arch/arm/repack.cpp, which it
// would choose for the core that this is compiled for.
//
//   multiply_mainline - TYPE N_TOKENS N_ROWS N_COLS REPETITIONS
#include "ggml-common.h"
#include "ggml.h"
#include "random_bytes.hpp"
#include "repack.h"

#include <cstdint>
#include <cstdlib>
#include <vector>

using multiply_fn = void (*)(int, float *, size_t, const void *, const void *, int, int);

struct kernels {
    ggml_type type;
    multiply_fn one, many;
};

static const kernels table[] = {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    {GGML_TYPE_Q4_0, ggml_gemv_q4_0_4x8_q8_0, ggml_gemm_q4_0_4x8_q8_0},
    {GGML_TYPE_Q8_0, ggml_gemv_q8_0_4x8_q8_0, ggml_gemm_q8_0_4x8_q8_0},
    {GGML_TYPE_Q4_K, ggml_gemv_q4_K_8x8_q8_K, ggml_gemm_q4_K_8x8_q8_K},
    {GGML_TYPE_Q6_K, ggml_gemv_q6_K_8x8_q8_K, ggml_gemm_q6_K_8x8_q8_K},
#else
    {GGML_TYPE_Q4_0, ggml_gemv_q4_0_4x4_q8_0, ggml_gemm_q4_0_4x4_q8_0},
    {GGML_TYPE_Q8_0, ggml_gemv_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x4_q8_0},
    {GGML_TYPE_Q4_K, ggml_gemv_q4_K_8x4_q8_K, ggml_gemm_q4_K_8x4_q8_K},
    {GGML_TYPE_Q6_K, ggml_gemv_q6_K_8x4_q8_K, ggml_gemm_q6_K_8x4_q8_K},
#endif
};

int main(int argc, char **argv) {
    if (argc != 7) return 1;
    const int type = atoi(argv[2]), n_tokens = atoi(argv[3]), n_rows = atoi(argv[4]), n_cols = atoi(argv[5]);
    for (const auto &k : table) {
        if (int(k.type) != type) continue;
        // no repacked format takes more than 2 bytes per weight or activation
        const auto rows = random_bytes(size_t(n_rows) * n_cols * 2), x = random_bytes(size_t(n_tokens) * n_cols * 2);
        std::vector<float> y(size_t(n_tokens) * n_rows);
        for (int i = atoi(argv[6]); i > 0; i--) {
            (n_tokens == 1 ? k.one : k.many)(n_cols, y.data(), n_rows, rows.data(), x.data(), n_tokens, n_rows);
        }
        return 0;
    }
    return 2; // llama.cpp repacks no such type
}
