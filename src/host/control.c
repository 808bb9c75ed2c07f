#include "host/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "host/control_parts.h"
#include "host/log.h"

enum {
	REQUEST_SIZE = 64,
	READ_MS = 2000,	  /* for a request to be complete */
	WRITE_MS = 5000,  /* for an answer to be taken */
	PAUSE_MS = 1000,  /* until the next is accepted, when no descriptor is left */
	LOCK_TRIES = 100, /* of 10 ms */
};

enum state { FREE, READING, WAITING, WRITING };

struct client {
	enum state state;
	int fd;
	int64_t deadline; /* milliseconds; not while it waits */
	char request[REQUEST_SIZE];
	size_t got;
	enum nq_request waits_for;
	uint32_t ticket;
	char *answer;
	size_t length, sent;
};

struct nq_control {
	int fd;
	struct stat file; /* as it was made: another's is left alone */
	uid_t owner;
	int64_t accept_after;
	int64_t now; /* when it was served last */
	struct client clients[NQ_CONTROL_CLIENTS];
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
};

/* --- The file --- */

/* Nobody else may put something in the socket's place. */
static int use_folder(const char *folder)
{
	struct stat status;

	if (mkdir(folder, 0700) < 0 && errno != EEXIST)
		return -errno;
	if (lstat(folder, &status) < 0)
		return -errno;
	if (!S_ISDIR(status.st_mode))
		return -ENOTDIR;
	if ((status.st_uid != geteuid() && status.st_uid != 0) || status.st_mode & 022)
		return -EPERM;
	return access(folder, W_OK | X_OK) < 0 ? -errno : 0;
}

/* Of those who begin at the same moment, one at a time looks whether the name is in use. */
static int lock_folder(const char *folder)
{
	static const struct timespec pause = {.tv_nsec = 10000000};
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (int try = 0; fd >= 0 && try < LOCK_TRIES && flock(fd, LOCK_EX | LOCK_NB) < 0; try++)
		nanosleep(&pause, NULL);
	return fd;
}

static int listen_at(const char *path, struct stat *file)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = nq_control_connect(path);
	int error;

	if (fd >= 0 || fd == -EAGAIN) {
		if (fd >= 0)
			close(fd);
		return -EADDRINUSE;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* The mode counts from the first moment on: nobody can connect before it listens. */
	if ((unlink(path) < 0 && errno != ENOENT) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0600) < 0 ||
	    lstat(path, file) < 0 || listen(fd, NQ_CONTROL_CLIENTS) < 0) {
		error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

static int open_at(const char *folder, const char *path, struct stat *file)
{
	int error = use_folder(folder);
	int lock, fd;

	if (error)
		return error;
	lock = lock_folder(folder);
	fd = listen_at(path, file);
	if (lock >= 0)
		close(lock);
	return fd;
}

struct nq_control *nq_control_open(const char *name, struct nq_failure *failure)
{
	struct nq_control *control = calloc(1, sizeof(*control));
	char folder[NQ_CONTROL_FOLDER];
	char tried[512] = "";
	int error = -ENOMEM;

	if (!control) {
		nq_fail(failure, 1, ENOMEM, "not enough memory");
		return NULL;
	}
	control->owner = geteuid();
	control->fd = -1;
	for (unsigned which = 0; control->fd < 0 && nq_control_folder(which, folder); which++) {
		size_t length = strlen(tried);

		error = nq_control_file(folder, name, control->path, sizeof(control->path));
		if (!error)
			error = open_at(folder, control->path, &control->file);
		if (error >= 0)
			control->fd = error;
		else if (error == -EADDRINUSE)
			break;
		else
			snprintf(tried + length, sizeof(tried) - length, "%s%s: %s",
				 length ? ", " : "", folder,
				 error == -EPERM ? "not its owner's alone to write to"
						 : strerror(-error));
	}
	if (control->fd >= 0)
		return control;
	if (error == -EADDRINUSE)
		nq_fail(failure, 69, EADDRINUSE,
			"an nfqueue named '%s' runs already (%s); give this one another --name",
			name, control->path);
	else
		nq_fail(failure, 69, -error, "no folder for the control socket (%s)",
			*tried ? tried : "neither NFQUEUE_RUNTIME_DIR nor XDG_RUNTIME_DIR is set");
	free(control);
	return NULL;
}

const char *nq_control_path(const struct nq_control *control)
{
	return control->path;
}

static void end_client(struct client *client)
{
	close(client->fd);
	free(client->answer);
	*client = (struct client){.state = FREE};
}

void nq_control_close(struct nq_control *control, bool leave)
{
	struct stat file;

	if (!control)
		return;
	if (leave && lstat(control->path, &file) == 0 && file.st_dev == control->file.st_dev &&
	    file.st_ino == control->file.st_ino)
		(void)unlink(control->path);
	for (unsigned i = 0; i < NQ_CONTROL_CLIENTS; i++) {
		if (control->clients[i].state != FREE)
			end_client(&control->clients[i]);
	}
	close(control->fd);
	free(control);
}

/* --- Serving --- */

void nq_control_prepare(struct nq_control *control, struct pollfd *polls, int64_t now, int *timeout)
{
	int64_t first = INT64_MAX;
	bool room = false;

	for (unsigned i = 0; i < NQ_CONTROL_POLLS; i++)
		polls[i] = (struct pollfd){.fd = -1};
	if (!control)
		return;
	for (unsigned i = 0; i < NQ_CONTROL_CLIENTS; i++) {
		const struct client *client = &control->clients[i];

		if (client->state == FREE) {
			room = true;
			continue;
		}
		polls[1 + i].fd = client->fd;
		/* One that waits is only looked at for its end. */
		if (client->state != WAITING) {
			polls[1 + i].events = client->state == READING ? POLLIN : POLLOUT;
			if (client->deadline < first)
				first = client->deadline;
		}
	}
	if (room && now >= control->accept_after)
		polls[0] = (struct pollfd){.fd = control->fd, .events = POLLIN};
	else if (room && control->accept_after < first)
		first = control->accept_after;
	if (first != INT64_MAX) {
		int left = first > now ? (int)(first - now) : 0;

		if (*timeout < 0 || left < *timeout)
			*timeout = left;
	}
}

static bool is_allowed(const struct nq_control *control, int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == 0 || peer.uid == control->owner || peer.uid == geteuid());
}

static void accept_clients(struct nq_control *control, int64_t now)
{
	for (unsigned i = 0; i < NQ_CONTROL_CLIENTS; i++) {
		struct client *client = &control->clients[i];
		int fd;

		if (client->state != FREE)
			continue;
		fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			/* It would be asked for again and again. */
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
				control->accept_after = now + PAUSE_MS;
			return;
		}
		if (is_allowed(control, fd))
			*client = (struct client){
				.state = READING, .fd = fd, .deadline = now + READ_MS};
		else
			close(fd);
	}
}

static void write_answer(struct client *client)
{
	while (client->sent < client->length) {
		ssize_t now = send(client->fd, client->answer + client->sent,
				   client->length - client->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (now < 0 && errno == EINTR)
			continue;
		if (now < 0 && errno == EAGAIN)
			return;
		if (now < 0)
			break;
		client->sent += (size_t)now;
	}
	end_client(client);
}

void nq_control_answer(struct nq_control *control, unsigned number, int status, const char *text,
		       size_t length)
{
	struct client *client = &control->clients[number];
	int head;

	client->answer = malloc(length + 16);
	if (!client->answer) {
		end_client(client);
		return;
	}
	head = sprintf(client->answer, "%d\n", status);
	memcpy(client->answer + head, text, length);
	client->length = length + (size_t)head;
	client->sent = 0;
	client->state = WRITING;
	client->deadline = control->now + WRITE_MS;
	write_answer(client);
}

void nq_control_wait(struct nq_control *control, unsigned number, enum nq_request request,
		     uint32_t ticket)
{
	struct client *client = &control->clients[number];

	client->state = WAITING;
	client->waits_for = request;
	client->ticket = ticket;
}

void nq_control_answer_all(struct nq_control *control, enum nq_request request, uint32_t ticket,
			   int status, const char *text)
{
	for (unsigned i = 0; control && i < NQ_CONTROL_CLIENTS; i++) {
		const struct client *client = &control->clients[i];

		if (client->state == WAITING && client->waits_for == request &&
		    client->ticket <= ticket)
			nq_control_answer(control, i, status, text, strlen(text));
	}
}

void nq_control_flush(struct nq_control *control)
{
	for (unsigned i = 0; control && i < NQ_CONTROL_CLIENTS; i++) {
		if (control->clients[i].state == WRITING)
			write_answer(&control->clients[i]);
	}
}

static bool find_request(const char *line, enum nq_request *request)
{
	static const char *const words[] = {
		[NQ_REQUEST_RELOAD] = "reload",
		[NQ_REQUEST_STOP] = "stop",
		[NQ_REQUEST_STATS] = "stats",
	};

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(line, words[i]) == 0) {
			*request = (enum nq_request)i;
			return true;
		}
	}
	return false;
}

static void read_request(struct nq_control *control, unsigned number,
			 void (*handle)(void *context, unsigned client, enum nq_request request),
			 void *context)
{
	static const char unknown[] = "this nfqueue knows no such request\n";
	struct client *client = &control->clients[number];
	enum nq_request request;
	ssize_t got;
	char *end;

	do {
		got = recv(client->fd, client->request + client->got, REQUEST_SIZE - client->got,
			   MSG_DONTWAIT);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0) {
		end_client(client);
		return;
	}
	client->got += (size_t)got;
	end = memchr(client->request, '\n', client->got);
	if (!end && client->got < REQUEST_SIZE)
		return;
	if (end)
		*end = '\0';
	if (end && find_request(client->request, &request))
		handle(context, number, request);
	else
		nq_control_answer(control, number, 64, unknown, strlen(unknown));
}

void nq_control_serve(struct nq_control *control, const struct pollfd *polls, int64_t now,
		      void (*handle)(void *context, unsigned client, enum nq_request request),
		      void *context)
{
	if (!control)
		return;
	control->now = now;
	for (unsigned i = 0; i < NQ_CONTROL_CLIENTS; i++) {
		struct client *client = &control->clients[i];
		short events = polls[1 + i].revents;

		if (client->state == FREE || polls[1 + i].fd != client->fd)
			continue;
		if (client->state == READING && events)
			read_request(control, i, handle, context);
		else if (client->state == WRITING && events)
			write_answer(client);
		else if (client->state == WAITING && events)
			end_client(client);
		if ((client->state == READING || client->state == WRITING) &&
		    client->deadline <= now)
			end_client(client);
	}
	if (polls[0].revents)
		accept_clients(control, now);
}
