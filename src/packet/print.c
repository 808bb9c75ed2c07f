#include "packet/print.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>

#include "packet/bytes.h"
#include "packet/header.h"

struct line {
	char *text;
	size_t length;
};

static void append(struct line *line, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void append(struct line *line, const char *format, ...)
{
	size_t room = NQ_PRINT_SIZE - line->length;
	va_list arguments;
	int wrote;

	va_start(arguments, format);
	wrote = vsnprintf(line->text + line->length, room, format, arguments);
	va_end(arguments);
	if (wrote > 0)
		line->length += (size_t)wrote < room ? (size_t)wrote : room - 1;
}

static const char flag_letters[] = "FSRPAUEC";

void nq_tcp_flags_print(uint8_t flags, char letters[9])
{
	unsigned count = 0;

	for (unsigned bit = 0; bit < 8; bit++) {
		if (flags >> bit & 1)
			letters[count++] = flag_letters[bit];
	}
	letters[count] = '\0';
}

bool nq_tcp_flags_read(const char *letters, size_t length, uint8_t *flags)
{
	*flags = 0;
	for (size_t i = 0; i < length; i++) {
		const char *letter = letters[i] ? strchr(flag_letters, letters[i]) : NULL;

		if (!letter)
			return false;
		*flags |= (uint8_t)(1 << (letter - flag_letters));
	}
	return true;
}

static void append_address(struct line *line, const struct nq_packet *packet, bool source)
{
	char text[INET6_ADDRSTRLEN] = "?";
	bool is_ip6 = packet->layout.version == 6;
	const uint8_t *address = packet->data + (is_ip6 ? (source ? 8 : 24) : (source ? 12 : 16));

	(void)inet_ntop(is_ip6 ? AF_INET6 : AF_INET, address, text, sizeof(text));
	append(line, "%s", text);
}

static void append_ends(struct line *line, const struct nq_packet *packet, const uint8_t *ports)
{
	append(line, packet->layout.version == 6 ? "IP6 " : "IP ");
	append_address(line, packet, true);
	if (ports)
		append(line, ".%u", nq_get_u16(ports));
	append(line, " > ");
	append_address(line, packet, false);
	if (ports)
		append(line, ".%u", nq_get_u16(ports + 2));
	append(line, ": ");
}

static void append_tcp(struct line *line, const uint8_t *tcp, uint32_t payload)
{
	char letters[9];
	uint32_t seq = nq_get_u32(tcp + 4);

	nq_tcp_flags_print(tcp[13], letters);
	append(line, "Flags [%s], seq %u", letters[0] ? letters : "none", seq);
	if (payload)
		append(line, ":%u", seq + payload);
	if (tcp[13] & 0x10)
		append(line, ", ack %u", nq_get_u32(tcp + 8));
	append(line, ", win %u, length %u", nq_get_u16(tcp + 14), payload);
}

static void append_icmp(struct line *line, const struct nq_packet *packet, const uint8_t *icmp,
			uint32_t size)
{
	bool is_ip6 = packet->layout.version == 6;
	bool is_request = icmp[0] == (is_ip6 ? 128 : 8);
	bool is_reply = icmp[0] == (is_ip6 ? 129 : 0);

	append(line, is_ip6 ? "ICMP6, " : "ICMP ");
	if ((is_request || is_reply) && size >= 8)
		append(line, "echo %s, id %u, seq %u", is_request ? "request" : "reply",
		       nq_get_u16(icmp + 4), nq_get_u16(icmp + 6));
	else
		append(line, "type %u, code %u", icmp[0], icmp[1]);
	append(line, ", length %u", size);
}

void nq_packet_print(struct nq_packet *packet, char text[NQ_PRINT_SIZE])
{
	const struct nq_layout *layout = nq_packet_layout(packet);
	struct line line = {.text = text};
	uint32_t at, payload = 0, end = 0;

	text[0] = '\0';
	(void)nq_payload_find(packet, &payload, &end);
	if (layout->version == 0) {
		append(&line, "ethertype 0x%04x, length %u", packet->ethertype, packet->length);
	} else if (nq_header_find(packet, NQ_HEADER_TCP, &at)) {
		append_ends(&line, packet, packet->data + at);
		append_tcp(&line, packet->data + at, end - payload);
	} else if (nq_header_find(packet, NQ_HEADER_UDP, &at)) {
		append_ends(&line, packet, packet->data + at);
		append(&line, "UDP, length %u", end - payload);
	} else if (nq_header_find(packet, NQ_HEADER_ICMP, &at)) {
		append_ends(&line, packet, NULL);
		append_icmp(&line, packet, packet->data + at, end - at);
	} else {
		append_ends(&line, packet, NULL);
		append(&line, "proto %u, length %u", layout->protocol, end - payload);
	}
	if (layout->more_fragments || layout->frag_offset)
		append(&line, ", frag offset %u%s", layout->frag_offset,
		       layout->more_fragments ? "+" : "");
	if (nq_packet_truncated(packet))
		append(&line, ", truncated");
}
