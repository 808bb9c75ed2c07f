#include "host/settings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int nq_fail(struct nq_failure *failure, int status, int error, const char *format, ...)
{
	va_list arguments;

	failure->status = status;
	failure->error = error;
	va_start(arguments, format);
	vsnprintf(failure->message, sizeof(failure->message), format, arguments);
	va_end(arguments);
	return -error;
}

int nq_fail_socket(struct nq_failure *failure, int error)
{
	switch (error) {
	case EPROTONOSUPPORT:
	case EAFNOSUPPORT:
		return nq_fail(failure, 69, error,
			       "cannot open a netfilter socket: %s (it needs "
			       "CONFIG_NETFILTER_NETLINK)",
			       strerror(error));
	default:
		return nq_fail(failure, 1, error, "cannot open a netfilter socket: %s",
			       strerror(error));
	}
}

const char *nq_flag_name(unsigned index)
{
	static const char *const names[NQ_FLAG_COUNT] = {"fail_open", "conntrack", "gso", "uid_gid",
							 "secctx"};

	return names[index];
}

const char *nq_flag_requirement(unsigned index)
{
	static const char *const needs[NQ_FLAG_COUNT] = {
		"Linux 3.6 or newer",
		"CONFIG_NETFILTER_NETLINK_GLUE_CT and the nf_conntrack_netlink module",
		"Linux 3.10 or newer",
		"Linux 3.18 or newer",
		"CONFIG_NETWORK_SECMARK",
	};

	return needs[index];
}
