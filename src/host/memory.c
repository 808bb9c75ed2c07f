#include "host/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host/log.h"

enum { SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };
enum { WAIT_MS = 5000, LOOK_MS = 5 };

static size_t page_align(size_t size)
{
	return (size + 4095) & ~(size_t)4095;
}

/* Where everything lies: the same for the same numbers, or NQ_MEMORY_VERSION is another. */
struct layout {
	size_t lanes, queues, slots, lane_slots, kept, lane_kept, copies, size;
};

static struct layout lay_out(unsigned lane_count, unsigned queue_count)
{
	struct layout at;

	at.lanes = page_align(sizeof(struct nq_memory));
	at.queues = page_align(at.lanes + lane_count * sizeof(struct nq_lane_memory));
	at.slots = page_align(at.queues + queue_count * sizeof(struct nq_queue_memory));
	at.lane_slots = page_align((size_t)NQ_SLOTS * NQ_SLOT_STRIDE);
	at.kept = page_align(at.slots + lane_count * at.lane_slots);
	at.lane_kept = page_align((size_t)NQ_KEPT_LANE * sizeof(struct nq_kept));
	at.copies = at.kept + lane_count * at.lane_kept;
	at.size = at.copies + lane_count * NQ_COPIES_SIZE;
	return at;
}

/* A file in memory that cannot shrink under those who have mapped it: the descriptor, or -errno. */
static int make_file(size_t size)
{
	int fd = memfd_create("nfqueue", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int error;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
		return fd;
	error = -errno;
	close(fd);
	return error;
}

/* Far more than is ever touched: no memory is set aside for it. */
static struct nq_memory *map(size_t size, int fd)
{
	void *place = mmap(NULL, size, PROT_READ | PROT_WRITE,
			   MAP_SHARED | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

	return place == MAP_FAILED ? NULL : place;
}

struct nq_memory *nq_memory_new(unsigned lane_count, const uint16_t *numbers, unsigned queue_count,
				int *fd)
{
	struct layout at = lay_out(lane_count, queue_count);
	struct nq_memory *memory;
	unsigned queue = 0;
	int file = fd ? make_file(at.size) : -1;

	if (fd && file < 0) {
		errno = -file;
		return NULL;
	}
	memory = map(at.size, file);
	if (!memory) {
		int error = errno;

		if (fd)
			close(file);
		errno = error;
		return NULL;
	}
	if (fd)
		*fd = file;
	memory->magic = NQ_MEMORY_MAGIC;
	memory->version = NQ_MEMORY_VERSION;
	memory->size = at.size;
	memory->lane_count = lane_count;
	memory->queue_count = queue_count;
	memory->lanes = at.lanes;
	memory->queues = at.queues;
	for (unsigned i = 0; i < lane_count; i++) {
		struct nq_lane_memory *lane = nq_memory_lane(memory, i);

		lane->cursor = NQ_CURSOR_DONE;
		lane->slots = at.slots + i * at.lane_slots;
		lane->first_queue = queue;
		for (unsigned n = i; n < queue_count; n += lane_count)
			nq_memory_queue(memory, queue++)->number = numbers[n];
		lane->queue_count = queue - lane->first_queue;
		lane->kept = at.kept + i * at.lane_kept;
		lane->copies = at.copies + i * NQ_COPIES_SIZE;
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

/* --- That of an earlier run --- */

/* Such a lock is the process's, and of nobody it forks: it ends with it, however that ends. */
static struct flock whole_file(void)
{
	return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

int nq_memory_claim(int fd)
{
	struct flock lock = whole_file();

	return fcntl(fd, F_SETLK, &lock) < 0 ? -errno : 0;
}

/* A worker that its supervisor has left, and its manager not killed: never two that send. */
static const char *end_writers(int fd)
{
	static const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};

	for (int waited = 0; waited < WAIT_MS; waited += LOOK_MS) {
		struct flock lock = whole_file();

		if (fcntl(fd, F_GETLK, &lock) < 0)
			return strerror(errno);
		if (lock.l_type == F_UNLCK)
			return NULL;
		if (waited == 0)
			nq_log(NQ_LOG_WARN, "killing the worker that the last run left (pid %d)",
			       (int)lock.l_pid);
		if (lock.l_pid > 0)
			(void)kill(lock.l_pid, SIGKILL);
		nanosleep(&pause, NULL);
	}
	return "a worker of it is alive";
}

static const char *check_header(const struct nq_memory *memory, size_t size, unsigned lane_count,
				unsigned queue_count)
{
	struct layout at = lay_out(lane_count, queue_count);

	if (memory->magic != NQ_MEMORY_MAGIC)
		return "that memory is not nfqueue's";
	if (memory->version != NQ_MEMORY_VERSION)
		return "its memory has the layout of another version";
	if (memory->lane_count != lane_count || memory->queue_count != queue_count)
		return "it had other queues, or another number of threads";
	if (memory->size != size || size != at.size || memory->lanes != at.lanes ||
	    memory->queues != at.queues)
		return "its memory has another layout";
	return NULL;
}

/* What a successor follows without looking: lengths, and places in the batch. */
static bool lane_is_sound(const struct nq_memory *memory, const struct nq_lane_memory *lane)
{
	const struct nq_batch_store *batch = &lane->batch;

	for (unsigned i = 0; i < NQ_SLOTS; i++) {
		if (lane->messages[i].msg_len > NQ_SLOT_MESSAGE)
			return false;
	}
	if (batch->count > NQ_BATCH_ENTRIES)
		return false;
	for (unsigned i = 0; i < batch->count; i++) {
		const struct nq_batch_entry *entry = &batch->entries[i];
		uint64_t room = memory->size - lane->slots;

		if (entry->length > sizeof(batch->wire) ||
		    entry->start > sizeof(batch->wire) - entry->length)
			return false;
		if (entry->payload_length > room ||
		    (entry->payload_length && entry->payload > room - entry->payload_length))
			return false;
	}
	return lane->kept_used <= nq_memory_kept_most(lane);
}

static const char *check_lanes(struct nq_memory *memory, const uint16_t *numbers)
{
	struct layout at = lay_out(memory->lane_count, memory->queue_count);
	unsigned queue = 0;

	for (unsigned i = 0; i < memory->lane_count; i++) {
		const struct nq_lane_memory *lane = nq_memory_lane(memory, i);
		unsigned first = queue;

		for (unsigned n = i; n < memory->queue_count; n += memory->lane_count) {
			if (nq_memory_queue(memory, queue++)->number != numbers[n])
				return "it had other queues";
		}
		if (lane->first_queue != first || lane->queue_count != queue - first ||
		    lane->slots != at.slots + i * at.lane_slots ||
		    lane->kept != at.kept + i * at.lane_kept ||
		    lane->copies != at.copies + i * NQ_COPIES_SIZE)
			return "its memory has another layout";
		if (!lane_is_sound(memory, lane))
			return "its memory is damaged";
	}
	return NULL;
}

struct nq_memory *nq_memory_adopt(int fd, unsigned lane_count, const uint16_t *numbers,
				  unsigned queue_count, const char **why)
{
	struct nq_memory *memory;
	struct stat status;
	size_t size;
	int seals = fcntl(fd, F_GET_SEALS);

	/* A file that may shrink could kill this process at any time. */
	if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &status) < 0 ||
	    (size_t)status.st_size < sizeof(*memory)) {
		*why = "that memory is not nfqueue's";
		return NULL;
	}
	size = (size_t)status.st_size;
	*why = end_writers(fd);
	if (*why)
		return NULL;
	memory = map(size, fd);
	if (!memory) {
		*why = strerror(errno);
		return NULL;
	}
	*why = check_header(memory, size, lane_count, queue_count);
	if (!*why)
		*why = check_lanes(memory, numbers);
	if (!*why)
		return memory;
	munmap(memory, size);
	return NULL;
}
