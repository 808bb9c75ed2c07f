#include "table/memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* In front of a block; a cache line, which keeps mapped ones aligned to them. */
struct head {
	size_t size; /* of head and block */
	bool mapped;
	char unused[64 - sizeof(size_t) - sizeof(bool)];
};

_Static_assert(sizeof(struct head) == 64, "the head is a cache line");

#ifdef __SANITIZE_ADDRESS__
#define MAPPED SIZE_MAX /* so that it sees where blocks end */
#else
#define MAPPED ((size_t)128 << 10)
#endif
#define HUGE_PAGE ((size_t)2 << 20)

static size_t size_of(size_t count, size_t size)
{
	size_t bytes;

	if (__builtin_mul_overflow(count, size, &bytes) ||
	    __builtin_add_overflow(bytes, sizeof(struct head), &bytes))
		return 0;
	return bytes;
}

static void advise(void *head, size_t size)
{
#ifdef MADV_HUGEPAGE
	if (size >= HUGE_PAGE)
		(void)madvise(head, size, MADV_HUGEPAGE); /* without them it is only slower */
#else
	(void)head;
	(void)size;
#endif
}

void *nq_block_new(size_t count, size_t size)
{
	size_t bytes = size_of(count, size);
	struct head *head;

	if (!bytes)
		return NULL;
	if (bytes < MAPPED) {
		head = calloc(1, bytes);
		if (!head)
			return NULL;
	} else {
		head = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);
		if (head == MAP_FAILED)
			return NULL;
		advise(head, bytes);
		head->mapped = true;
	}
	head->size = bytes;
	return head + 1;
}

/* Between a small and a mapped block, or from nothing. */
/* ThreadSanitizer does not see mremap, and holds what it moves elsewhere for what was there. */
#ifdef __SANITIZE_THREAD__
enum { REMAPS = 0 };
#else
enum { REMAPS = 1 };
#endif

static void *move(void *block, size_t bytes)
{
	size_t old = block ? ((struct head *)block - 1)->size : sizeof(struct head);
	void *moved = nq_block_new(bytes - sizeof(struct head), 1);

	if (moved && block)
		memcpy(moved, block, (old < bytes ? old : bytes) - sizeof(struct head));
	if (moved)
		nq_block_free(block);
	return moved;
}

void *nq_block_resize(void *block, size_t count, size_t size)
{
	size_t bytes = size_of(count, size);
	struct head *head = block ? (struct head *)block - 1 : NULL;

	if (!bytes)
		return NULL;
	if (!head || head->mapped != (bytes >= MAPPED) || (head->mapped && !REMAPS))
		return move(block, bytes);
	if (head->mapped) {
		head = mremap(head, head->size, bytes, MREMAP_MAYMOVE);
		if (head == MAP_FAILED)
			return NULL;
		advise(head, bytes);
	} else {
		struct head *moved = realloc(head, bytes);

		if (!moved)
			return NULL;
		head = moved;
	}
	head->size = bytes;
	return head + 1;
}

void nq_block_free(void *block)
{
	struct head *head = block ? (struct head *)block - 1 : NULL;

	if (!head)
		return;
	if (head->mapped)
		munmap(head, head->size);
	else
		free(head);
}
