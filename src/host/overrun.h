/*
 * overrun.h - what a worker was ended for by its own watchdog, told to its supervisor: a call into
 * the script that overran its time and could not be interrupted.
 */
#ifndef NQ_OVERRUN_H
#define NQ_OVERRUN_H

#include <stdbool.h>

#include "host/memory.h"
#include "host/watchdog.h"

enum { NQ_OVERRUN_TEXT = 200 };

/* In the worker, just before its end. */
void nq_overrun_write(struct nq_memory *memory, const struct nq_watched *watched);

/*
 * In the supervisor, after a worker's death: whether it was for that, with how it died in
 * `text` ("was ended: ..."), and whether the script was loading then. Once a death.
 */
bool nq_overrun_take(struct nq_memory *memory, char text[NQ_OVERRUN_TEXT], bool *loading);

#endif
