#include "table/address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "packet/bytes.h"

/* Bytes of a dotted quad read; false when it is none. */
static bool parse_quad(const char *text, const char *end, uint32_t *address)
{
	uint32_t value = 0;

	for (unsigned part = 0; part < 4; part++) {
		unsigned number = 0;
		unsigned digits = 0;

		if (part > 0 && (text == end || *text++ != '.'))
			return false;
		while (text < end && *text >= '0' && *text <= '9') {
			if (digits > 0 && number == 0)
				return false;
			number = number * 10 + (unsigned)(*text++ - '0');
			if (++digits > 3 || number > 255)
				return false;
		}
		if (!digits)
			return false;
		value = value << 8 | number;
	}
	*address = value;
	return text == end;
}

/* The value of a hexadecimal digit and one, 0: it is none. */
static const uint8_t hex_values[256] = {
	['0'] = 1,  ['1'] = 2,	['2'] = 3,  ['3'] = 4,	['4'] = 5,  ['5'] = 6,
	['6'] = 7,  ['7'] = 8,	['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12,
	['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16, ['A'] = 11, ['B'] = 12,
	['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* Groups of 16 bits as they come, and where "::" was. */
struct groups {
	uint16_t value[8];
	unsigned count;
	int gap; /* number of groups in front of it, -1: none */
};

/* One group, or the dotted quad that may stand for the last two. Returns what follows, or NULL. */
static const char *parse_group(const char *text, const char *end, struct groups *groups)
{
	const char *start = text;
	uint32_t value = 0;
	uint32_t digit;

	while (text < end && text - start < 5 && (digit = hex_values[(uint8_t)*text]) != 0) {
		value = value << 4 | (digit - 1);
		text++;
	}
	if (text < end && *text == '.') {
		if (groups->count > 6 || !parse_quad(start, end, &value))
			return NULL;
		groups->value[groups->count++] = (uint16_t)(value >> 16);
		groups->value[groups->count++] = (uint16_t)value;
		return end;
	}
	if (text == start || text - start > 4 || groups->count == 8)
		return NULL;
	groups->value[groups->count++] = (uint16_t)value;
	return text;
}

static bool parse_groups(const char *text, const char *end, struct groups *groups)
{
	*groups = (struct groups){.gap = -1};
	if (end - text >= 2 && text[0] == ':' && text[1] == ':') {
		groups->gap = 0;
		text += 2;
	}
	while (text < end) {
		text = parse_group(text, end, groups);
		if (!text)
			return false;
		if (text == end)
			break;
		if (*text++ != ':' || text == end)
			return false; /* another character, or a colon that ends it */
		if (*text != ':')
			continue;
		if (groups->gap >= 0)
			return false;
		groups->gap = (int)groups->count;
		text++;
	}
	return groups->gap < 0 ? groups->count == 8 : groups->count < 8;
}

static bool parse_ip6(const char *text, size_t length, struct nq_address *address)
{
	struct groups groups;
	uint16_t all[8] = {0};
	unsigned behind;

	if (!parse_groups(text, text + length, &groups))
		return false;
	if (groups.gap < 0)
		groups.gap = 8;
	behind = groups.count > (unsigned)groups.gap ? groups.count - (unsigned)groups.gap : 0;
	memcpy(all, groups.value, (groups.count - behind) * sizeof(all[0]));
	memcpy(all + 8 - behind, groups.value + groups.count - behind, behind * sizeof(all[0]));
	address->high =
		(uint64_t)all[0] << 48 | (uint64_t)all[1] << 32 | (uint64_t)all[2] << 16 | all[3];
	address->low =
		(uint64_t)all[4] << 48 | (uint64_t)all[5] << 32 | (uint64_t)all[6] << 16 | all[7];
	address->bits = 128;
	return true;
}

bool nq_address_parse(const char *text, size_t length, struct nq_address *address)
{
	uint32_t quad;

	if (length > 45)
		return false;
	if (parse_quad(text, text + length, &quad)) {
		*address = (struct nq_address){.high = (uint64_t)quad << 32, .bits = 32};
		return true;
	}
	return parse_ip6(text, length, address);
}

bool nq_address_read(const uint8_t *bytes, size_t length, struct nq_address *address)
{
	if (length == 4) {
		*address =
			(struct nq_address){.high = (uint64_t)nq_get_u32(bytes) << 32, .bits = 32};
		return true;
	}
	if (length != 16)
		return false;
	*address = (struct nq_address){
		.high = nq_get_u64(bytes), .low = nq_get_u64(bytes + 8), .bits = 128};
	return true;
}

static bool parse_length(const char *text, size_t length, unsigned most, uint8_t *result)
{
	unsigned value = 0;

	if (length == 0 || length > 3 || (length > 1 && text[0] == '0'))
		return false;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	*result = (uint8_t)value;
	return value <= most;
}

/* Ones behind the first `length` bits. */
static void host_mask(unsigned length, uint64_t *high, uint64_t *low)
{
	*high = length >= 64 ? 0 : UINT64_MAX >> length;
	*low = length <= 64 ? UINT64_MAX : length >= 128 ? 0 : UINT64_MAX >> (length - 64);
}

enum nq_prefix_result nq_prefix_parse(const char *text, size_t length, struct nq_prefix *prefix)
{
	const char *slash = memchr(text, '/', length);
	size_t front = slash ? (size_t)(slash - text) : length;
	uint64_t high, low;

	if (!nq_address_parse(text, front, &prefix->address))
		return NQ_PREFIX_NO_ADDRESS;
	prefix->length = prefix->address.bits;
	if (slash &&
	    !parse_length(slash + 1, length - front - 1, prefix->address.bits, &prefix->length))
		return NQ_PREFIX_BAD_LENGTH;
	host_mask(prefix->length, &high, &low);
	if (!(prefix->address.high & high) && !(prefix->address.low & low))
		return NQ_PREFIX_OK;
	prefix->address.high &= ~high;
	prefix->address.low &= ~low;
	return NQ_PREFIX_SURPLUS_BITS;
}

void nq_prefix_end(const struct nq_prefix *prefix, uint64_t *high, uint64_t *low)
{
	host_mask(prefix->length, high, low);
	*high |= prefix->address.high;
	*low |= prefix->address.low;
	if (prefix->address.bits == 32) {
		*high &= (uint64_t)UINT32_MAX << 32;
		*low = 0;
	}
}

void nq_prefix_print(const struct nq_prefix *prefix, char text[NQ_PREFIX_TEXT])
{
	uint64_t bytes[2] = {htobe64(prefix->address.high), htobe64(prefix->address.low)};
	char address[INET6_ADDRSTRLEN] = "";

	inet_ntop(prefix->address.bits == 32 ? AF_INET : AF_INET6, bytes, address, sizeof(address));
	snprintf(text, NQ_PREFIX_TEXT, "%s/%u", address, prefix->length);
}
