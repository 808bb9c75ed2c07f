#include "table/registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct nq_registry {
	atomic_uint references;
	pthread_mutex_t lock;
	struct nq_table *tables;
	unsigned count;
};

void nq_table_init(struct nq_table *table, const struct nq_table_class *class)
{
	table->class = class;
	atomic_init(&table->references, 1);
	table->name = NULL;
	table->generation = 0;
	table->older = NULL;
	table->next = NULL;
}

void nq_table_hold(struct nq_table *table)
{
	atomic_fetch_add_explicit(&table->references, 1, memory_order_relaxed);
}

void nq_table_release(struct nq_table *table)
{
	if (!table || atomic_fetch_sub_explicit(&table->references, 1, memory_order_acq_rel) != 1)
		return;
	free(table->name);
	table->class->destroy(table);
}

struct nq_registry *nq_registry_new(void)
{
	struct nq_registry *registry = malloc(sizeof(*registry));

	if (!registry)
		return NULL;
	atomic_init(&registry->references, 1);
	pthread_mutex_init(&registry->lock, NULL);
	registry->tables = NULL;
	registry->count = 0;
	return registry;
}

void nq_registry_hold(struct nq_registry *registry)
{
	atomic_fetch_add_explicit(&registry->references, 1, memory_order_relaxed);
}

void nq_registry_release(struct nq_registry *registry)
{
	if (!registry ||
	    atomic_fetch_sub_explicit(&registry->references, 1, memory_order_acq_rel) != 1)
		return;
	while (registry->tables) {
		struct nq_table *table = registry->tables;

		registry->tables = table->next;
		nq_table_release(table->older);
		nq_table_release(table);
	}
	pthread_mutex_destroy(&registry->lock);
	free(registry);
}

/* The link that points to the table, or the last link of the list. */
static struct nq_table **find(struct nq_registry *registry, const struct nq_table_class *class,
			      const char *name)
{
	struct nq_table **link = &registry->tables;

	while (*link && ((*link)->class != class || strcmp((*link)->name, name) != 0))
		link = &(*link)->next;
	return link;
}

static struct nq_table *make(const struct nq_table_class *class, const char *name,
			     unsigned generation, const void *options)
{
	char *copy = NULL;
	struct nq_table *table;

	if (name) {
		copy = strdup(name);
		if (!copy)
			return NULL;
	}
	table = class->make(options);
	if (!table) {
		int error = errno;

		free(copy);
		errno = error;
		return NULL;
	}
	table->name = copy;
	table->generation = generation;
	return table;
}

static int get_named(struct nq_registry *registry, const struct nq_table_class *class,
		     const char *name, unsigned generation, const void *options,
		     struct nq_table **table)
{
	struct nq_table **link = find(registry, class, name);
	struct nq_table *old = *link;
	struct nq_table *made;

	if (old && (generation < old->generation || class->matches(old, options))) {
		/* What is asked for again is of the new script, too. */
		if (generation > old->generation)
			old->generation = generation;
		nq_table_hold(old);
		*table = old;
		return 0;
	}
	if (old && generation == old->generation) {
		nq_table_hold(old);
		*table = old;
		return -EEXIST;
	}
	if (!old && registry->count >= NQ_REGISTRY_MAX)
		return -ENOSPC;
	made = make(class, name, generation, options);
	if (!made)
		return -errno;
	nq_table_hold(made); /* the registry's, beside the caller's */
	made->next = old ? old->next : NULL;
	*link = made;
	registry->count += !old;
	*table = made;
	/* The registry's reference goes along; to what is not settled yet, none goes back. */
	if (old && old->older) {
		made->older = old->older;
		old->older = NULL;
		nq_table_release(old);
	} else {
		made->older = old;
	}
	return 0;
}

int nq_registry_get(struct nq_registry *registry, const struct nq_table_class *class,
		    const char *name, unsigned generation, const void *options,
		    struct nq_table **table)
{
	int result;

	if (!name) {
		*table = make(class, NULL, generation, options);
		return *table ? 0 : -errno;
	}
	pthread_mutex_lock(&registry->lock);
	result = get_named(registry, class, name, generation, options, table);
	pthread_mutex_unlock(&registry->lock);
	return result;
}

void nq_registry_settle(struct nq_registry *registry, unsigned generation, bool taken)
{
	struct nq_table **link = &registry->tables;

	pthread_mutex_lock(&registry->lock);
	for (; *link; link = &(*link)->next) {
		struct nq_table *table = *link;
		struct nq_table *older = table->older;

		if (!older || table->generation != generation)
			continue;
		table->older = NULL;
		if (taken) {
			nq_table_release(older);
		} else {
			older->next = table->next;
			*link = older;
			nq_table_release(table);
		}
	}
	pthread_mutex_unlock(&registry->lock);
}
