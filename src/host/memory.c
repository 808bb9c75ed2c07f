#include "host/memory.h"

#include <errno.h>
#include <sys/mman.h>

static size_t page_align(size_t size)
{
	return (size + 4095) & ~(size_t)4095;
}

struct nq_memory *nq_memory_new(unsigned lane_count, const uint16_t *numbers, unsigned queue_count)
{
	size_t lanes = page_align(sizeof(struct nq_memory));
	size_t queues = page_align(lanes + lane_count * sizeof(struct nq_lane_memory));
	size_t slots = page_align(queues + queue_count * sizeof(struct nq_queue_memory));
	size_t lane_slots = page_align((size_t)NQ_SLOTS * NQ_SLOT_STRIDE);
	size_t kept = page_align(slots + lane_count * lane_slots);
	size_t lane_kept = page_align((size_t)NQ_KEPT_LANE * sizeof(struct nq_kept));
	size_t copies = kept + lane_count * lane_kept;
	size_t size = copies + lane_count * NQ_COPIES_SIZE;
	/* Far more than is ever touched: no memory is set aside for it. */
	struct nq_memory *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
					MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned queue = 0;

	if (memory == MAP_FAILED)
		return NULL;
	memory->magic = NQ_MEMORY_MAGIC;
	memory->version = NQ_MEMORY_VERSION;
	memory->size = size;
	memory->lane_count = lane_count;
	memory->queue_count = queue_count;
	memory->lanes = lanes;
	memory->queues = queues;
	for (unsigned i = 0; i < lane_count; i++) {
		struct nq_lane_memory *lane = nq_memory_lane(memory, i);

		lane->cursor = NQ_CURSOR_DONE;
		lane->slots = slots + i * lane_slots;
		lane->first_queue = queue;
		for (unsigned n = i; n < queue_count; n += lane_count)
			nq_memory_queue(memory, queue++)->number = numbers[n];
		lane->queue_count = queue - lane->first_queue;
		lane->kept = kept + i * lane_kept;
		lane->copies = copies + i * NQ_COPIES_SIZE;
	}
	return memory;
}

void nq_memory_free(struct nq_memory *memory)
{
	if (memory)
		munmap(memory, memory->size);
}

struct nq_lane_memory *nq_memory_lane(struct nq_memory *memory, unsigned lane)
{
	return (struct nq_lane_memory *)((char *)memory + memory->lanes) + lane;
}

struct nq_queue_memory *nq_memory_queue(struct nq_memory *memory, unsigned queue)
{
	return (struct nq_queue_memory *)((char *)memory + memory->queues) + queue;
}
