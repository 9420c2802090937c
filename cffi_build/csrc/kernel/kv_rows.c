/* Types of cached keys and values; kernel/attention.inc.h reads and writes them. */
#include "kernel/kernels.h"

size_t iq_kv_row_bytes(int32_t kv_type, size_t n) {
    switch (kv_type) {
    case IQ_TYPE_F32: return 4 * n;
    case IQ_TYPE_F16: return 2 * n;
    default: return 0;
    }
}
