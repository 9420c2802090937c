/* Norm, gate, rotation and attention in float32, written once in the f32x16 vocabulary.
 * Included by kernel_<isa>.c inside its target region, after its ops; fills the float entries of iq_kernels. */
#include "kernel/float_exp.inc.h"
#include "kernel/float_norm.inc.h"
#include "kernel/kv_store.inc.h"
#include "kernel/attention.inc.h"
