#include "packet/capture_file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "packet/filter.h"

void nq_capture_fail(struct nq_capture_failure *failure, int error, const char *format, ...)
{
	va_list arguments;

	failure->error = error;
	va_start(arguments, format);
	vsnprintf(failure->message, sizeof(failure->message), format, arguments);
	va_end(arguments);
}

void *nq_capture_fail_missing(struct nq_capture_failure *failure)
{
	nq_capture_fail(failure, ENOTSUP, "capture files need libpcap, and %s", NQ_PCAP_MISSING);
	return NULL;
}
