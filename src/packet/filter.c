#include "packet/filter.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef NQ_HAVE_PCAP

#include <pcap/pcap.h>

/* More than any packet: what the program returns for a match. */
enum { SNAPSHOT = 262144 };

struct nq_filter {
	struct bpf_program program;
	char *expression;
};

bool nq_pcap_available(void)
{
	return true;
}

struct nq_filter *nq_filter_new(const char *expression, char *message, size_t size)
{
	struct nq_filter *filter = calloc(1, sizeof(*filter));
	pcap_t *context = pcap_open_dead(DLT_RAW, SNAPSHOT);

	if (filter)
		filter->expression = strdup(expression);
	if (!filter || !filter->expression || !context) {
		snprintf(message, size, "%s", strerror(ENOMEM));
		goto out;
	}
	if (pcap_compile(context, &filter->program, expression, 1, PCAP_NETMASK_UNKNOWN) != 0) {
		snprintf(message, size, "%s", pcap_geterr(context));
		goto out;
	}
	pcap_close(context);
	return filter;
out:
	if (context)
		pcap_close(context);
	nq_filter_free(filter);
	return NULL;
}

void nq_filter_free(struct nq_filter *filter)
{
	if (!filter)
		return;
	pcap_freecode(&filter->program);
	free(filter->expression);
	free(filter);
}

const char *nq_filter_expression(const struct nq_filter *filter)
{
	return filter->expression;
}

bool nq_filter_match(const struct nq_filter *filter, const uint8_t *bytes, uint32_t length,
		     uint32_t wire_length)
{
	return bpf_filter(filter->program.bf_insns, bytes, wire_length, length) != 0;
}

#else

bool nq_pcap_available(void)
{
	return false;
}

struct nq_filter *nq_filter_new(const char *expression, char *message, size_t size)
{
	(void)expression;
	snprintf(message, size, "%s", NQ_PCAP_MISSING);
	return NULL;
}

void nq_filter_free(struct nq_filter *filter)
{
	(void)filter;
}

const char *nq_filter_expression(const struct nq_filter *filter)
{
	(void)filter;
	return "";
}

bool nq_filter_match(const struct nq_filter *filter, const uint8_t *bytes, uint32_t length,
		     uint32_t wire_length)
{
	(void)filter;
	(void)bytes;
	(void)length;
	(void)wire_length;
	return true;
}

#endif
