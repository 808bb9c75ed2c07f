/*
 * set.h - what address and name sets have in common: a content that many threads search while
 * another replaces it.
 *
 * A content never changes. A reader pins it for a search; it waits for nobody, and nobody's lock is
 * touched. Who replaces it waits until nobody searches the old one, and frees that: so there is one
 * copy, however many queues there are, and two only while a list is being read.
 */
#ifndef NQ_TABLE_SET_H
#define NQ_TABLE_SET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "table/list.h"
#include "table/registry.h"

/* More entries are a mistake: a gigabyte of them. */
#define NQ_SET_ENTRIES_MAX (1u << 24)

/* What is different between sets of addresses and of names. */
struct nq_set_kind {
	void *(*builder_new)(void); /* NULL: no memory */
	void (*builder_free)(void *builder);
	nq_list_parse *parse;	       /* its context is the builder */
	void *(*build)(void *builder); /* the content; NULL: no memory */
	void (*content_free)(void *content);
	size_t (*count)(const void *content);
};

struct nq_set_reader {
	_Atomic(void *) pinned; /* the content being searched, NULL: none */
	struct nq_set_reader *next;
};

struct nq_set {
	struct nq_table table;
	const struct nq_set_kind *kind;
	uint64_t fingerprint; /* of the content it was made with */
	_Atomic(void *) content;
	pthread_mutex_t lock; /* of replacing, and of the readers */
	struct nq_set_reader *readers;
	pthread_mutex_t loading;
	struct nq_list_source *sources; /* what the content was read from, under `loading` */
	size_t source_count;
};

/* For nq_registry_get. */
struct nq_set_options {
	const struct nq_set_kind *kind;
	/* *content: what a new set begins with. Taken, and then NULL, when a new one is made. */
	void **content;
	/* Of that content; 0: any set of the name will do. */
	uint64_t fingerprint;
};

extern const struct nq_table_class nq_cidrset_class;
extern const struct nq_table_class nq_domainset_class;

/* A reader belongs to one thread at a time. It holds no reference to the set. */
void nq_set_join(struct nq_set *set, struct nq_set_reader *reader);
void nq_set_leave(struct nq_set *set, struct nq_set_reader *reader);

/*
 * The content, until nq_set_unpin. Between them there is nothing but a search: no waiting, and
 * nothing that may unwind.
 */
static inline const void *nq_set_pin(struct nq_set *set, struct nq_set_reader *reader)
{
	void *content = atomic_load_explicit(&set->content, memory_order_acquire);
	void *now;

	/* Either the one who replaces it sees the pin, or this one sees the replacement. */
	for (;;) {
		atomic_store_explicit(&reader->pinned, content, memory_order_seq_cst);
		now = atomic_load_explicit(&set->content, memory_order_seq_cst);
		if (now == content)
			return content;
		content = now;
	}
}

static inline void nq_set_unpin(struct nq_set_reader *reader)
{
	atomic_store_explicit(&reader->pinned, NULL, memory_order_release);
}

/* Takes the content, waits for the readers of the old one and frees it. */
void nq_set_replace(struct nq_set *set, void *content);

/*
 * Replaces the content by what the files hold together; when they are the ones it was read from,
 * and have not changed since, nothing is read. 0; -EBADMSG with list->line and list->problem;
 * another -errno. *path is the file a failure speaks of, NULL: none. After a failure the set is as
 * it was. Any thread; one at a time.
 */
int nq_set_load(struct nq_set *set, const char *const *paths, size_t path_count,
		struct nq_list *list, const char **path);

#endif
