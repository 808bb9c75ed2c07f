/*
 * value.h - what tables keep for a key: the Lua values that can be shared between states.
 */
#ifndef NQ_TABLE_VALUE_H
#define NQ_TABLE_VALUE_H

#include <stddef.h>
#include <stdint.h>

enum nq_value_kind {
	NQ_VALUE_FALSE,
	NQ_VALUE_TRUE,
	NQ_VALUE_INTEGER,
	NQ_VALUE_FLOAT,
	NQ_VALUE_STRING,
};

struct nq_value {
	enum nq_value_kind kind;
	union {
		int64_t integer;
		double real;
		struct {
			const char *bytes; /* whose they are is said where values are passed */
			size_t length;
		} string;
	};
};

#endif
