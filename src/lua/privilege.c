#include "lua/privilege.h"

#include <dirent.h>
#include <errno.h>
#include <lauxlib.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/confine.h"
#include "host/privilege.h"
#include "lua/args.h"

/* Does not raise, as directories are open around it: for want of memory it says so at the end. */
static void add(struct nq_run_privilege *privilege, const char *text, size_t length)
{
	char *copy = strndup(text, length);
	char **strings = realloc(privilege->strings,
				 (privilege->string_count + 1) * sizeof(*privilege->strings));

	if (strings)
		privilege->strings = strings;
	if (strings && copy) {
		strings[privilege->string_count++] = copy;
	} else {
		privilege->incomplete = true;
		free(copy);
	}
}

/* The folder of a file; of one at the root, which would be everything, the file alone. */
static void add_folder(struct nq_run_privilege *privilege, const char *file)
{
	const char *slash = strrchr(file, '/');

	if (!slash)
		add(privilege, ".", 1);
	else if (slash == file)
		add(privilege, file, strlen(file));
	else
		add(privilege, file, (size_t)(slash - file));
}

enum { DEEPEST = 4, LONGEST_WALK = 10000 };

/*
 * Distributions keep one file for several versions of Lua and link to it from the folder of each:
 * what such links name is read as well. They are an administrator's, as the folders are.
 */
static void add_links(struct nq_run_privilege *privilege, const char *folder, int depth, int *left)
{
	DIR *dir = opendir(folder);
	char path[PATH_MAX], target[PATH_MAX];
	struct dirent *entry;
	struct stat status;

	if (!dir)
		return;
	while ((entry = readdir(dir)) != NULL && (*left)-- > 0) {
		if (entry->d_name[0] == '.' || snprintf(path, sizeof(path), "%s/%s", folder,
							entry->d_name) >= (int)sizeof(path))
			continue;
		if (entry->d_type == DT_DIR && depth < DEEPEST)
			add_links(privilege, path, depth + 1, left);
		if (entry->d_type == DT_LNK && realpath(path, target) &&
		    stat(target, &status) == 0 && S_ISREG(status.st_mode))
			add(privilege, target, strlen(target));
	}
	closedir(dir);
}

/* The folders of templates as package.path has them: "/usr/share/lua/5.4/?/init.lua;./?.lua". */
static void add_templates(struct nq_run_privilege *privilege, const char *templates)
{
	while (templates && *templates) {
		size_t length = strcspn(templates, ";");
		size_t fixed = strcspn(templates, "?;");

		while (fixed > 0 && templates[fixed - 1] != '/')
			fixed--;
		if (*templates == '/' && fixed > 1) {
			char folder[PATH_MAX];
			int left = LONGEST_WALK;

			add(privilege, templates, fixed);
			if (fixed < sizeof(folder)) {
				memcpy(folder, templates, fixed);
				folder[fixed - 1] = '\0';
				add_links(privilege, folder, 0, &left);
			}
		}
		templates += length + (templates[length] == ';');
	}
}

/* Returns how many there are in the list. */
static size_t read_list(lua_State *L, struct nq_run_privilege *privilege, const char *name)
{
	size_t count;

	if (lua_getfield(L, 1, name) == LUA_TNIL) {
		lua_pop(L, 1);
		return 0;
	}
	nq_arg_table(L, -1, "run", name);
	count = (size_t)lua_rawlen(L, -1);
	for (size_t i = 0; i < count; i++) {
		const char *text;
		size_t length;

		lua_rawgeti(L, -1, (lua_Integer)i + 1);
		text = nq_arg_string(L, -1, "run", name, &length);
		add(privilege, text, length);
		lua_pop(L, 1);
	}
	lua_pop(L, 1);
	return count;
}

void nq_run_privilege_read(lua_State *L, const char *script, const char *path, const char *cpath,
			   struct nq_run_privilege *privilege)
{
	char resolved[PATH_MAX];
	struct nq_landlock *files = &privilege->files;

	if (lua_getfield(L, 1, "user") != LUA_TNIL) {
		privilege->user = strdup(nq_arg_string(L, -1, "run", "user", NULL));
		if (!privilege->user)
			luaL_error(L, "not enough memory");
	}
	lua_pop(L, 1);
	if (lua_getfield(L, 1, "confine") != LUA_TNIL)
		privilege->confine = nq_arg_boolean(L, -1, "run", "confine");
	lua_pop(L, 1);
	/* A link is in one folder and what it names in another. */
	add_folder(privilege, script);
	if (realpath(script, resolved))
		add_folder(privilege, resolved);
	if (privilege->confine) {
		add_templates(privilege, path);
		add_templates(privilege, cpath);
	}
	files->folder_count = privilege->string_count;
	files->read_count = read_list(L, privilege, "read");
	files->write_count = read_list(L, privilege, "write");
	if (privilege->incomplete)
		luaL_error(L, "not enough memory");
	files->folders = (const char *const *)privilege->strings;
	files->read = files->folders + files->folder_count;
	files->write = files->read + files->read_count;
}

void nq_run_privilege_free(struct nq_run_privilege *privilege)
{
	for (size_t i = 0; i < privilege->string_count; i++)
		free(privilege->strings[i]);
	free(privilege->strings);
	free(privilege->user);
	memset(privilege, 0, sizeof(*privilege));
}

int nq_run_privilege_drop(const struct nq_run_privilege *privilege, struct nq_raw *raw,
			  struct nq_failure *failure)
{
	int error = 0;

	if (privilege->confine) {
		error = nq_raw_open_probes(raw);
		if (error)
			return nq_fail(failure, 1, -error,
				       "cannot open sockets to ask for routes: %s",
				       strerror(-error));
		error = nq_confine_check(&privilege->files, failure);
	}
	if (!error && privilege->user)
		error = nq_privilege_drop(privilege->user, failure);
	return error;
}

int nq_run_privilege_confine(const struct nq_run_privilege *privilege, struct nq_failure *failure)
{
	return privilege->confine ? nq_confine_enter(&privilege->files, failure) : 0;
}
