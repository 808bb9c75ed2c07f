#include "lua/sets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lua/args.h"
#include "lua/sandbox.h"

struct nq_sets_handle *nq_sets_check(lua_State *L, const char *method, const char *what)
{
	return (struct nq_sets_handle *)nq_tables_check(L, method, what);
}

const char *nq_sets_name(lua_State *L, const char *function)
{
	const char *name = NULL;

	if (lua_getfield(L, 1, "name") != LUA_TNIL)
		name = nq_tables_name(L, -1, function);
	lua_pop(L, 1);
	return name;
}

int nq_sets_open(lua_State *L, const void *key, const struct nq_table_class *class,
		 const struct nq_set_kind *kind, const char *name, struct nq_guard *content,
		 uint64_t fingerprint)
{
	const char *what = class == &nq_cidrset_class ? "cidrset" : "domainset";
	struct nq_set_options options = {
		.kind = kind, .content = &content->object, .fingerprint = fingerprint};
	struct nq_sets_handle *handle = nq_class_push(L, key, sizeof(*handle), 0);
	int error = -ENOMEM;

	handle->reader = calloc(1, sizeof(*handle->reader));
	if (handle->reader)
		error = nq_tables_obtain(L, &handle->handle, class, name, &options);
	if (handle->handle.table)
		nq_set_join(nq_sets_set(handle), handle->reader);
	nq_guard_free(content);
	if (error == -EEXIST)
		return luaL_error(L,
				  "bad argument 'name' to '%s' ('%s' was made with other entries)",
				  what, name);
	return error ? nq_tables_failure(L, error, what, name) : 1;
}

int nq_sets_gc(lua_State *L, const char *what)
{
	struct nq_sets_handle *handle = nq_class_check(L, "gc", what);

	if (handle->handle.table)
		nq_set_leave(nq_sets_set(handle), handle->reader);
	free(handle->reader);
	handle->reader = NULL;
	return nq_tables_gc(L, what);
}

static size_t count_entries(struct nq_sets_handle *handle)
{
	struct nq_set *set = nq_sets_set(handle);
	size_t count = set->kind->count(nq_set_pin(set, handle->reader));

	nq_set_unpin(handle->reader);
	return count;
}

int nq_sets_len(lua_State *L, const char *what)
{
	lua_pushinteger(L, (lua_Integer)count_entries(nq_sets_check(L, "#", what)));
	return 1;
}

/* The strings from 2 on, in a userdata on the stack. */
static const char **read_paths(lua_State *L, int count)
{
	const char **paths;

	if (count < 1)
		nq_arg_string(L, 2, "load", "path", NULL);
	for (int i = 0; i < count; i++) {
		size_t length;
		const char *path = nq_arg_string(L, 2 + i, "load", "path", &length);

		if (length == 0 || strlen(path) != length)
			nq_arg_error(L, 2 + i, "load", "path", "path of a file");
		nq_sandbox_check_file(L, path, "load");
	}
	paths = lua_newuserdatauv(L, (size_t)count * sizeof(*paths), 0);
	for (int i = 0; i < count; i++)
		paths[i] = lua_tostring(L, 2 + i);
	return paths;
}

int nq_sets_load(lua_State *L, const char *what)
{
	struct nq_sets_handle *handle = nq_sets_check(L, "load", what);
	int count = lua_gettop(L) - 1;
	const char **paths = read_paths(L, count);
	struct nq_list list;
	const char *path;
	int error;

	error = nq_set_load(nq_sets_set(handle), paths, (size_t)count, &list, &path);
	if (error == 0) {
		lua_pushinteger(L, (lua_Integer)count_entries(handle));
		return 1;
	}
	if (error == -EBADMSG) {
		lua_pushfstring(L, "%s:%I: %s", path, (LUAI_UACINT)list.line, list.problem);
		return nq_push_failure(L, EINVAL, lua_tostring(L, -1));
	}
	if (path)
		lua_pushfstring(L, "cannot read %s: %s", path, strerror(-error));
	else
		lua_pushfstring(L, "cannot load: %s", strerror(-error));
	return nq_push_failure(L, -error, lua_tostring(L, -1));
}
