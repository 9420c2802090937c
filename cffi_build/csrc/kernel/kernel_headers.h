/* What kernel_body.inc.h needs, to be included before a target region opens. */
#ifndef IQ_KERNEL_KERNEL_HEADERS_H
#define IQ_KERNEL_KERNEL_HEADERS_H

#include "base/fp16.h"
#include "format/codebooks.h"
#include "format/iq2_k.h"
#include "format/iq2_ks.h"
#include "format/iq2_kl.h"
#include "format/iq3_k.h"
#include "format/iq3_ks.h"
#include "format/iq4_k.h"
#include "format/iq4_ks.h"
#include "format/iq4_kss.h"
#include "format/iq4_nl.h"
#include "format/iq4_xs.h"
#include "format/iq5_k.h"
#include "format/iq5_ks.h"
#include "format/iq6_k.h"
#include "format/q2_k.h"
#include "format/q3_k.h"
#include "format/q4_0.h"
#include "format/q4_1.h"
#include "format/q4_k.h"
#include "format/q5_0.h"
#include "format/q5_1.h"
#include "format/q5_k.h"
#include "format/q6_0.h"
#include "format/q6_k.h"
#include "format/q8_0.h"
#include "kernel/kernels.h"
#include "kernel/slot_order.h"
#include "kernel/tables.h"

#include <math.h>

#endif
