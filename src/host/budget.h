/*
 * budget.h - how much memory a state may use: what its interpreter has and what its loop copies of
 * packets, in one account.
 *
 * It is kept by the thread that the state belongs to. What asks for memory takes from it first, and
 * goes without when it is used up.
 */
#ifndef NQ_BUDGET_H
#define NQ_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct nq_budget {
	int64_t limit;	/* bytes */
	int64_t left;	/* below 0: more was in use already when the limit was set */
	int64_t copies; /* of what is used: copies of packets */
	bool refused;	/* since somebody last looked: something was not granted */
};

static inline bool nq_budget_take(struct nq_budget *budget, int64_t bytes)
{
	if (bytes > 0 && bytes > budget->left) {
		budget->refused = true;
		return false;
	}
	budget->left -= bytes;
	return true;
}

static inline void nq_budget_take_copy(struct nq_budget *budget, int64_t bytes)
{
	budget->left -= bytes;
	budget->copies += bytes;
}

#endif
