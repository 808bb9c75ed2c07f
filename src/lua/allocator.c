#include "lua/allocator.h"

#include <lauxlib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As lua_Alloc wants it; `had` of a new block is the kind of object, not a size. */
static void *allocate_own(void *context, void *block, size_t had, size_t size)
{
	struct nq_budget *budget = context;
	void *moved;

	if (!block)
		had = 0;
	if (size == 0) {
		budget->left += (int64_t)had;
		free(block);
		return NULL;
	}
	if (!nq_budget_take(budget, (int64_t)size - (int64_t)had))
		return NULL;
	moved = realloc(block, size);
	if (moved)
		return moved;
	/* Lua takes for granted that a block can become smaller. */
	if (size <= had)
		return block;
	budget->left += (int64_t)size - (int64_t)had;
	return NULL;
}

static void *allocate_entered(void *context, void *block, size_t had, size_t size)
{
	struct nq_allocator *allocator = context;
	int64_t more = (int64_t)size - (block ? (int64_t)had : 0);
	void *moved;

	if (!nq_budget_take(&allocator->budget, more))
		return NULL;
	moved = allocator->inner(allocator->inner_context, block, had, size);
	if (!moved && size > 0)
		allocator->budget.left += more;
	return moved;
}

lua_State *nq_allocator_state(struct nq_allocator *allocator)
{
	lua_State *L = luaL_newstate();

	*allocator = (struct nq_allocator){.budget = {.limit = INT64_MAX, .left = INT64_MAX}};
	if (!L)
		return NULL;
	/* Its allocator is realloc and free, as the manual has it, and so is this one. */
	lua_setallocf(L, allocate_own, &allocator->budget);
	allocator->budget.left -= nq_allocator_used(L);
	return L;
}

int64_t nq_allocator_used(lua_State *L)
{
	int64_t kilobytes = lua_gc(L, LUA_GCCOUNT);

	/* It does not tell in a finalizer. */
	return kilobytes < 0 ? 0 : kilobytes * 1024 + lua_gc(L, LUA_GCCOUNTB);
}

void nq_allocator_limit(struct nq_allocator *allocator, int64_t limit)
{
	struct nq_budget *budget = &allocator->budget;

	budget->left += limit - budget->limit;
	budget->limit = limit;
	allocator->collect_below = limit / 4;
}

void nq_allocator_enter(lua_State *L, struct nq_allocator *allocator)
{
	struct nq_budget *budget = &allocator->budget;
	void *context;
	lua_Alloc present;

	budget->refused = false;
	if (budget->limit == 0 || allocator->depth++ > 0)
		return;
	present = lua_getallocf(L, &context);
	if (present == allocate_own && context == &allocator->budget)
		return;
	/* That may be another of ours, around this call: both count. */
	allocator->inner = present;
	allocator->inner_context = context;
	budget->left = budget->limit + allocator->base - budget->copies - nq_allocator_used(L);
	lua_setallocf(L, allocate_entered, allocator);
}

void nq_allocator_leave(lua_State *L, struct nq_allocator *allocator)
{
	if (allocator->depth == 0 || --allocator->depth > 0 || !allocator->inner)
		return;
	lua_setallocf(L, allocator->inner, allocator->inner_context);
	allocator->inner = NULL;
}

void nq_allocator_collect(lua_State *L, struct nq_allocator *allocator)
{
	struct nq_budget *budget = &allocator->budget;

	if (budget->limit == 0 || (!budget->refused && budget->left >= allocator->collect_below))
		return;
	budget->refused = false;
	nq_allocator_enter(L, allocator);
	lua_gc(L, LUA_GCCOLLECT);
	nq_allocator_leave(L, allocator);
	/* Where all is in use, as little helps, it shall not be tried at every packet. */
	allocator->collect_below = budget->left / 2;
	if (allocator->collect_below > budget->limit / 4)
		allocator->collect_below = budget->limit / 4;
}

void nq_allocator_strip(lua_State *L)
{
	void *context;

	while (lua_getallocf(L, &context) == allocate_entered) {
		struct nq_allocator *allocator = context;

		lua_setallocf(L, allocator->inner, allocator->inner_context);
		allocator->inner = NULL;
	}
}

const char *nq_allocator_reason(const struct nq_allocator *allocator, const char *message,
				char reason[NQ_ALLOCATOR_REASON])
{
	reason[0] = '\0';
	if (allocator->budget.refused && message && strstr(message, "not enough memory"))
		snprintf(reason, NQ_ALLOCATOR_REASON, "memory_limit (%lld bytes) is reached: ",
			 (long long)allocator->budget.limit);
	return reason;
}
