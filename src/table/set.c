#include "table/set.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

static struct nq_table *make(const struct nq_set_options *options,
			     const struct nq_table_class *class)
{
	struct nq_set *set = malloc(sizeof(*set));

	if (!set)
		return NULL;
	nq_table_init(&set->table, class);
	set->kind = options->kind;
	set->fingerprint = options->fingerprint;
	atomic_init(&set->content, *options->content);
	*options->content = NULL;
	pthread_mutex_init(&set->lock, NULL);
	set->readers = NULL;
	pthread_mutex_init(&set->loading, NULL);
	set->sources = NULL;
	set->source_count = 0;
	return &set->table;
}

static struct nq_table *make_cidrset(const void *options)
{
	return make(options, &nq_cidrset_class);
}

static struct nq_table *make_domainset(const void *options)
{
	return make(options, &nq_domainset_class);
}

static int matches(const struct nq_table *table, const void *given)
{
	const struct nq_set_options *options = given;

	return !options->fingerprint ||
	       options->fingerprint == ((const struct nq_set *)table)->fingerprint;
}

static void destroy(struct nq_table *table)
{
	struct nq_set *set = (struct nq_set *)table;

	set->kind->content_free(atomic_load_explicit(&set->content, memory_order_acquire));
	pthread_mutex_destroy(&set->lock);
	pthread_mutex_destroy(&set->loading);
	free(set->sources);
	free(set);
}

const struct nq_table_class nq_cidrset_class = {make_cidrset, matches, destroy};
const struct nq_table_class nq_domainset_class = {make_domainset, matches, destroy};

void nq_set_join(struct nq_set *set, struct nq_set_reader *reader)
{
	atomic_init(&reader->pinned, NULL);
	pthread_mutex_lock(&set->lock);
	reader->next = set->readers;
	set->readers = reader;
	pthread_mutex_unlock(&set->lock);
}

void nq_set_leave(struct nq_set *set, struct nq_set_reader *reader)
{
	struct nq_set_reader **link = &set->readers;

	pthread_mutex_lock(&set->lock);
	while (*link != reader)
		link = &(*link)->next;
	*link = reader->next;
	pthread_mutex_unlock(&set->lock);
}

void nq_set_replace(struct nq_set *set, void *content)
{
	void *old;

	pthread_mutex_lock(&set->lock);
	old = atomic_exchange_explicit(&set->content, content, memory_order_seq_cst);
	for (struct nq_set_reader *reader = set->readers; reader; reader = reader->next) {
		/* A search takes a microsecond. */
		while (atomic_load_explicit(&reader->pinned, memory_order_seq_cst) == old)
			sched_yield();
	}
	pthread_mutex_unlock(&set->lock);
	set->kind->content_free(old);
}

/* Under set->loading. */
static bool is_loaded(const struct nq_set *set, const char *const *paths, size_t path_count)
{
	if (path_count != set->source_count)
		return false;
	for (size_t i = 0; i < path_count; i++) {
		struct nq_list_source source;

		if (nq_list_look(paths[i], &source) != 0 ||
		    !nq_list_same(&source, &set->sources[i]))
			return false;
	}
	return true;
}

/* Under set->loading. */
static int load(struct nq_set *set, const char *const *paths, size_t path_count,
		struct nq_list *list, const char **path)
{
	struct nq_list_source *sources = calloc(path_count, sizeof(*sources));
	void *builder = set->kind->builder_new();
	void *content = NULL;
	int result = sources && builder ? 0 : -ENOMEM;

	for (size_t i = 0; i < path_count && result == 0; i++) {
		*path = paths[i];
		result = nq_list_read(paths[i], set->kind->parse, builder, list, &sources[i]);
	}
	if (result)
		goto out;
	*path = NULL;
	content = set->kind->build(builder);
	if (!content) {
		result = -ENOMEM;
		goto out;
	}
	/* Freed first, so that at no time there is more than both contents. */
	set->kind->builder_free(builder);
	builder = NULL;
	nq_set_replace(set, content);
	free(set->sources);
	set->sources = sources;
	set->source_count = path_count;
	sources = NULL;
out:
	if (builder)
		set->kind->builder_free(builder);
	free(sources);
	return result;
}

int nq_set_load(struct nq_set *set, const char *const *paths, size_t path_count,
		struct nq_list *list, const char **path)
{
	int result = 0;

	*path = NULL;
	/* A thread for each queue wants the same list at the same time: the others wait and find it
	 * there. */
	pthread_mutex_lock(&set->loading);
	if (!is_loaded(set, paths, path_count))
		result = load(set, paths, path_count, list, path);
	pthread_mutex_unlock(&set->loading);
	return result;
}
