#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

iq_status iq_fail(iq_error *error, iq_status status, const char *format, ...) {
    if (error) {
        va_list args;
        va_start(args, format);
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return status;
}
