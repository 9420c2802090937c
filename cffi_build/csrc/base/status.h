/* How a function reports failure: `return iq_fail(error, IQ_ERR_FORMAT, "...", ...)`. */
#ifndef IQ_BASE_STATUS_H
#define IQ_BASE_STATUS_H

#include "base/platform.h"
#include "iqrun.h"

/* Writes the sentence into *error (which may be NULL) and returns `status`. */
iq_status iq_fail(iq_error *error, iq_status status, const char *format, ...) IQ_PRINTF(3, 4);

#endif
