/*
 * registry.h - tables that all threads of a process find by name.
 *
 * A table is a store, a bucket or a set; each begins with a struct nq_table and is counted by its
 * references: one of the registry, if it has a name, and one of each handle. There is one registry
 * a process (nfqueue.run gives it to the states of its threads), and it keeps a named table until
 * it goes itself, so that what is in it survives the script being loaded anew.
 *
 * All of this may be called from any thread.
 */
#ifndef NQ_TABLE_REGISTRY_H
#define NQ_TABLE_REGISTRY_H

#include <stdatomic.h>
#include <stdbool.h>

struct nq_table;
struct nq_registry;

/* Names made from traffic by mistake must not fill the memory. */
#define NQ_REGISTRY_MAX 1024

struct nq_table_class {
	/* A table with one reference, the caller's; NULL with errno. */
	struct nq_table *(*make)(const void *options);
	/* Whether what is asked for is what the table has. */
	int (*matches)(const struct nq_table *table, const void *options);
	/* Called when the last reference goes. */
	void (*destroy)(struct nq_table *table);
};

struct nq_table {
	const struct nq_table_class *class;
	atomic_uint references;
	/* The registry's, under its lock. */
	char *name; /* NULL: none */
	unsigned generation;
	struct nq_table *older; /* in whose place it was put, until that is settled; NULL: none */
	struct nq_table *next;
};

/* For `make`: sets what is in front. */
void nq_table_init(struct nq_table *table, const struct nq_table_class *class);

void nq_table_hold(struct nq_table *table);
void nq_table_release(struct nq_table *table); /* NULL: does nothing */

/* With one reference; NULL with errno. */
struct nq_registry *nq_registry_new(void);
void nq_registry_hold(struct nq_registry *registry);
void nq_registry_release(struct nq_registry *registry); /* NULL: does nothing */

/*
 * The table of this class and name (NULL: a new one without a name) in *table, with a reference for
 * the caller; made if there is none. 0, or -errno of `make`, or
 * -EEXIST: there is one with other options; it is in *table, with a reference. When `generation`
 *          (counted up when scripts are loaded anew) is later than that of its maker, a new table
 *          takes its place instead, and whoever holds the old one keeps that;
 * -ENOSPC: NQ_REGISTRY_MAX names are taken.
 */
int nq_registry_get(struct nq_registry *registry, const struct nq_table_class *class,
		    const char *name, unsigned generation, const void *options,
		    struct nq_table **table);

/*
 * The script of that generation was taken, or given up: then the tables that it put in the place of
 * others are found no more, and those are again.
 */
void nq_registry_settle(struct nq_registry *registry, unsigned generation, bool taken);

#endif
