#include "packet/option.h"

#include <string.h>

bool nq_tcp_option_find(const struct nq_packet *packet, uint32_t offset, uint8_t kind,
			uint32_t *value, uint8_t *length)
{
	uint32_t at = offset + 20;
	uint32_t end = offset + (uint32_t)(packet->data[offset + 12] >> 4) * 4;

	while (at < end) {
		uint8_t this = packet->data[at];
		uint8_t size;

		if (this == NQ_OPTION_END)
			return false;
		if (this == NQ_OPTION_NOP) {
			at++;
			continue;
		}
		if (end - at < 2)
			return false;
		size = packet->data[at + 1];
		if (size < 2 || size > end - at)
			return false;
		if (this == kind) {
			*value = at + 2;
			*length = (uint8_t)(size - 2);
			return true;
		}
		at += size;
	}
	return false;
}

/* Appends, as far as there is room. */
static bool append(struct nq_tcp_options *options, uint8_t kind, const uint8_t *value,
		   size_t length)
{
	if (length + 2 > (size_t)(NQ_TCP_OPTIONS_MAX - options->length))
		return false;
	options->bytes[options->length++] = kind;
	options->bytes[options->length++] = (uint8_t)(length + 2);
	if (length)
		memcpy(options->bytes + options->length, value, length);
	options->length = (uint8_t)(options->length + length);
	return true;
}

/* One try, with or without the padding between options: NULL, or why not. */
static const char *set_option(struct nq_tcp_options *options, const uint8_t *bytes, uint32_t size,
			      uint8_t kind, const uint8_t *value, size_t length, bool padded)
{
	static const char no_room[] = "a TCP header has room for 40 bytes of options, and these "
				      "would be more";
	bool placed = value == NULL;
	uint32_t at = 0;

	options->length = 0;
	while (at < size && bytes[at] != NQ_OPTION_END) {
		uint8_t this = bytes[at];

		if (this == NQ_OPTION_NOP) {
			if (padded && options->length == NQ_TCP_OPTIONS_MAX)
				return no_room;
			if (padded)
				options->bytes[options->length++] = NQ_OPTION_NOP;
			at++;
			continue;
		}
		if (size - at < 2 || bytes[at + 1] < 2 || bytes[at + 1] > size - at)
			return "its TCP options are malformed";
		if (this != kind) {
			if (!append(options, this, bytes + at + 2, bytes[at + 1] - 2U))
				return no_room;
		} else if (!placed) {
			if (!append(options, kind, value, length))
				return no_room;
			placed = true;
		}
		at += bytes[at + 1];
	}
	if (!placed && !append(options, kind, value, length))
		return no_room;
	while (options->length % 4)
		options->bytes[options->length++] = NQ_OPTION_END;
	return NULL;
}

const char *nq_tcp_options_set(struct nq_tcp_options *options, const uint8_t *bytes, uint32_t size,
			       uint8_t kind, const uint8_t *value, size_t length)
{
	const char *reason = set_option(options, bytes, size, kind, value, length, true);

	return reason ? set_option(options, bytes, size, kind, value, length, false) : reason;
}
