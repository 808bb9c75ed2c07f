/*
 * manager.c - a service manager as systemd is one to a service of Type=notify with a descriptor
 * store.
 *
 *     manager MOST COMMAND_FILE [leave]
 *
 * It runs the shell commands in the file (their last is to be an exec) with $NOTIFY_SOCKET and
 * $FDSTORE=MOST, keeps descriptors for them and passes those on. When they end of a signal or with
 * another status than 0, it kills the processes they left, or not (`leave`), and runs them anew, as
 * they are in the file then. SIGUSR1 restarts them: SIGTERM first, and the store stays. SIGTERM
 * stops them, and closes the store before it ends. Where they were never ready it gives up.
 *
 * On standard output: "started PID", each line of a notification, "kept N", "left PID", "ended
 * STATUS" (128 + signal).
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 64, FIRST = 3 };

struct kept {
	int fd;
	char name[64];
};

static struct manager {
	struct kept kept[MOST];
	unsigned count, most;
	const char *file;
	char address[64]; /* of the notification socket, abstract */
	bool leave, restart, stop, ready;
	pid_t child;
	sigset_t before;
} manager;

static void say(const char *word, long number)
{
	printf("%s %ld\n", word, number);
	fflush(stdout);
}

static void put_number(const char *name, long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%ld", number);
	setenv(name, text, 1);
}

/* In the child: what is kept becomes 3, 4, ... */
static void pass_kept(void)
{
	char names[MOST * 65] = "";
	int spare[MOST];

	/* Out of the way first. */
	for (unsigned i = 0; i < manager.count; i++)
		spare[i] = fcntl(manager.kept[i].fd, F_DUPFD, FIRST + 2 * MOST);
	for (unsigned i = 0; i < manager.count; i++) {
		dup2(spare[i], FIRST + (int)i);
		close(spare[i]);
		if (i)
			strcat(names, ":");
		strcat(names, manager.kept[i].name);
	}
	put_number("LISTEN_FDS", manager.count);
	put_number("LISTEN_PID", getpid());
	setenv("LISTEN_FDNAMES", names, 1);
}

static void start(void)
{
	manager.child = fork();
	if (manager.child < 0) {
		perror("fork");
		exit(1);
	}
	if (manager.child == 0) {
		sigprocmask(SIG_SETMASK, &manager.before, NULL);
		setenv("NOTIFY_SOCKET", manager.address, 1);
		put_number("FDSTORE", manager.most);
		if (manager.count)
			pass_kept();
		execl("/bin/sh", "sh", manager.file, NULL);
		_exit(127);
	}
	manager.ready = false;
	say("started", manager.child);
}

static void keep(int fd, const char *name)
{
	if (manager.count == manager.most || manager.count == MOST) {
		close(fd);
		return;
	}
	manager.kept[manager.count].fd = fd;
	snprintf(manager.kept[manager.count].name, sizeof(manager.kept[0].name), "%s", name);
	manager.count++;
	say("kept", manager.count);
}

static void forget(const char *name)
{
	static const struct timespec late = {.tv_nsec = 100000000};
	unsigned left = 0;

	/* Whoever relies on its being quick shall not. */
	nanosleep(&late, NULL);

	for (unsigned i = 0; i < manager.count; i++) {
		if (strcmp(manager.kept[i].name, name) == 0)
			close(manager.kept[i].fd);
		else
			manager.kept[left++] = manager.kept[i];
	}
	manager.count = left;
	say("kept", manager.count);
}

/* One notification: text, and a descriptor at most. */
static void hear(int listener)
{
	char text[1024], name[64] = "stored";
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec piece = {text, sizeof(text) - 1};
	struct msghdr message = {.msg_iov = &piece,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};
	ssize_t got = recvmsg(listener, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *item = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	bool forgets = false;
	int fd = -1;

	if (got <= 0)
		return;
	if (item && item->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(item), sizeof(fd));
	text[got] = '\0';
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
		puts(line);
		if (strncmp(line, "FDNAME=", 7) == 0)
			snprintf(name, sizeof(name), "%s", line + 7);
		manager.ready |= strcmp(line, "READY=1") == 0;
		forgets |= strcmp(line, "FDSTOREREMOVE=1") == 0;
	}
	fflush(stdout);
	if (fd >= 0)
		keep(fd, name);
	if (forgets)
		forget(name);
}

/* The processes that the service left: they are this one's now. */
static void end_others(void)
{
	DIR *folder = opendir("/proc");
	struct dirent *entry;

	while (folder && (entry = readdir(folder)) != NULL) {
		char path[300], text[512] = "";
		long pid = strtol(entry->d_name, NULL, 10);
		FILE *file;
		char *at;
		int parent;

		if (pid <= 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (!fgets(text, sizeof(text), file))
			text[0] = '\0';
		fclose(file);
		at = strrchr(text, ')');
		if (!at || sscanf(at, ") %*c %d", &parent) != 1 || parent != getpid())
			continue;
		say("left", pid);
		if (!manager.leave) {
			kill((pid_t)pid, SIGKILL);
			waitpid((pid_t)pid, NULL, 0);
		}
	}
	if (folder)
		closedir(folder);
}

/* True when all is over. */
static bool reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

		if (pid != manager.child)
			continue;
		end_others();
		say("ended", code);
		if (manager.stop || !manager.ready || (code == 0 && !manager.restart))
			return true;
		manager.restart = false;
		start();
	}
	return false;
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	sigset_t signals;
	int listener, signal_fd;

	if (argc < 3) {
		fprintf(stderr, "usage: manager MOST COMMAND_FILE [leave]\n");
		return 64;
	}
	manager.most = (unsigned)strtoul(argv[1], NULL, 10);
	manager.file = argv[2];
	manager.leave = argc > 3;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGUSR1);
	sigprocmask(SIG_BLOCK, &signals, &manager.before);
	signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	listener = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(manager.address, sizeof(manager.address), "@nfqueue-manager-%d", (int)getpid());
	memcpy(address.sun_path + 1, manager.address + 1, strlen(manager.address) - 1);
	if (signal_fd < 0 || bind(listener, (struct sockaddr *)&address,
				  (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
					      strlen(manager.address))) < 0) {
		perror("manager");
		return 1;
	}
	start();
	for (;;) {
		struct pollfd ready[2] = {{.fd = listener, .events = POLLIN},
					  {.fd = signal_fd, .events = POLLIN}};
		struct signalfd_siginfo info;

		(void)poll(ready, 2, -1);
		/* What it said before it ended counts. */
		while (poll(ready, 1, 0) > 0)
			hear(listener);
		while (read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
			manager.restart |= info.ssi_signo == SIGUSR1;
			manager.stop |= info.ssi_signo == SIGTERM;
			if (info.ssi_signo != SIGCHLD)
				kill(manager.child, SIGTERM);
		}
		if (reap())
			return 0;
	}
}
