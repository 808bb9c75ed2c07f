/*
 * memory.h - blocks that may be large, come and go as a whole, and are looked at in random places.
 *
 * Large ones are mapped. The allocator would keep them for a thread's next use, and several threads
 * that load a list would leave its size behind each; and in huge pages a look at a random place of
 * 8 MB costs 20 ns, otherwise 120, most of it for finding the page.
 */
#ifndef NQ_TABLE_MEMORY_H
#define NQ_TABLE_MEMORY_H

#include <stddef.h>

/* `count` times `size` bytes, all zero; NULL: no memory. */
void *nq_block_new(size_t count, size_t size);

/* With another size, as realloc: NULL leaves the old one as it is. What is new in it is not set. */
void *nq_block_resize(void *block, size_t count, size_t size);

void nq_block_free(void *block); /* NULL: does nothing */

#endif
