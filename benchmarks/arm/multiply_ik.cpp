// As multiply.c, with ik_llama.cpp's kernels: compiled against its sources, linked with its objects.
//
//   multiply_ik - TYPE N_TOKENS N_ROWS N_COLS REPETITIONS
#include "ggml.h"
#include "iqk/iqk_mul_mat.h"
#include "random_bytes.hpp"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

int main(int argc, char **argv) {
    if (argc != 7) return 1;
    const auto type = ggml_type(atoi(argv[2]));
    const long n_tokens = atol(argv[3]), n_rows = atol(argv[4]), n_cols = atol(argv[5]);
    ggml_context *context = ggml_init({1024, nullptr, true}); // fills the fp16 table
    const auto traits = ggml_internal_get_type_traits(type);
    const ggml_type x_type = traits.vec_dot_type;
    const size_t row_bytes = ggml_row_size(type, n_cols), x_bytes = ggml_row_size(x_type, n_cols);

    const auto rows = random_bytes(row_bytes * n_rows + 64);
    std::vector<float> values(n_cols), y(n_tokens * n_rows);
    for (long i = 0; i < n_cols; i++) values[i] = float(int(i * 7919 % 251)) - 125.0f;
    std::vector<uint8_t> x(x_bytes * n_tokens);
    for (long t = 0; t < n_tokens; t++) {
        ggml_internal_get_type_traits(x_type).from_float(values.data(), x.data() + t * x_bytes, n_cols);
    }
    for (long i = atol(argv[6]); i > 0; i--) {
        if (iqk_mul_mat(n_rows, n_tokens, n_cols, type, rows.data(), row_bytes, x_type, x.data(), x_bytes, y.data(),
                        n_rows, 0, 1)) {
            continue;
        }
        // what its matmul falls back to: one dot product after the other
        for (long t = 0; t < n_tokens; t++) {
            for (long r = 0; r < n_rows; r++) {
                traits.vec_dot(int(n_cols), &y[t * n_rows + r], 0, rows.data() + r * row_bytes, 0,
                               x.data() + t * x_bytes, 0, 1);
            }
        }
    }
    ggml_free(context);
    return 0;
}
