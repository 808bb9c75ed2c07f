/*
 * notify.h - what a service manager is told, and what it keeps for a service: systemd's protocols,
 * sd_notify(3) and sd_pid_notify_with_fds(3), of which a few lines are needed.
 *
 * Without a manager ($NOTIFY_SOCKET) everything here does nothing. All of it belongs to the
 * supervisor's process; nothing waits.
 */
#ifndef NQ_NOTIFY_H
#define NQ_NOTIFY_H

#include <stdbool.h>

struct nq_notify {
	int fd;		/* connected to the manager's socket; -1: there is none */
	unsigned store; /* descriptors that the manager keeps for the service; 0: none */
};

/*
 * Connects to the manager. Takes $NOTIFY_SOCKET and $FDSTORE out of the environment: they are not
 * for the programs that scripts start.
 */
void nq_notify_open(struct nq_notify *notify);
void nq_notify_close(struct nq_notify *notify);

/* Sends assignments, one a line: "READY=1", "STATUS=...". */
void nq_notify_send(const struct nq_notify *notify, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* "RELOADING=1" with the time that has to go with it. */
void nq_notify_reloading(const struct nq_notify *notify);

/* Has the manager keep a copy of the descriptor under this name (no colon): 0 or -errno. */
int nq_notify_keep(const struct nq_notify *notify, int fd, const char *name);

/* Has it let go of what it keeps under this name. */
void nq_notify_forget(const struct nq_notify *notify, const char *name);

/* The first descriptor that is passed to a service (sd_listen_fds(3)); the others follow. */
#define NQ_PASSED_FIRST 3

/*
 * The number of descriptors passed to this process, now close-on-exec, and their names separated by
 * colons, to be freed (NULL without any). Takes $LISTEN_FDS, $LISTEN_FDNAMES and $LISTEN_PID out of
 * the environment.
 */
unsigned nq_notify_take_passed(char **names);

#endif
