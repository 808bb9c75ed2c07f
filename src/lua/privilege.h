/*
 * privilege.h - what `nfqueue run` gives up, as the plan of a run tells it: see host/privilege.h
 * and host/confine.h.
 */
#ifndef NQ_LUA_PRIVILEGE_H
#define NQ_LUA_PRIVILEGE_H

#include <lua.h>
#include <stdbool.h>

#include "host/landlock.h"
#include "host/settings.h"
#include "netlink/raw.h"

struct nq_run_privilege {
	char *user; /* NULL: stay who it is */
	bool confine;
	struct nq_landlock files;
	char **strings; /* what `files` points into */
	size_t string_count;
	bool incomplete; /* memory was missing */
};

/*
 * Reads, from the table at 1, `user`, `confine`, and the lists of paths `read` and `write`. The
 * folders that a confined worker may read are the script's and those of the paths for modules
 * (NULL: none) that are absolute: what "./?.lua" means is up to where it is started. Raises for
 * wrong types; what was read until then is freed like the rest.
 */
void nq_run_privilege_read(lua_State *L, const char *script, const char *path, const char *cpath,
			   struct nq_run_privilege *privilege);
void nq_run_privilege_free(struct nq_run_privilege *privilege);

/* In the supervisor, once everything is open that needs the privilege: 0, or -errno, *failure. */
int nq_run_privilege_drop(const struct nq_run_privilege *privilege, struct nq_raw *raw,
			  struct nq_failure *failure);

/* In a worker, before it has threads and has read the script: the same. */
int nq_run_privilege_confine(const struct nq_run_privilege *privilege, struct nq_failure *failure);

#endif
