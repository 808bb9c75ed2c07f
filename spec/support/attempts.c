/*
 * A C module for handlers: system calls that a confined worker has no use for. attempt(name) makes
 * one: its result, or nil and the errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <linux/landlock.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

static long exec_true(void)
{
	char *words[] = {"/bin/true", NULL};

	return execv(words[0], words);
}

static long make_process(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		_exit(0);
	return pid;
}

static long call_fork(void)
{
	long pid = fork();

	if (pid == 0)
		_exit(0);
	return pid;
}

static long read_parent(void)
{
	char byte;
	struct iovec here = {&byte, 1}, there = {&byte, 1};

	return syscall(SYS_process_vm_readv, getppid(), &here, 1L, &there, 1L, 0L);
}

static long set_limit(void)
{
	struct rlimit limit = {1, 1};

	return setrlimit(RLIMIT_CORE, &limit);
}

static const struct {
	const char *name;
	long (*call)(void);
	long number;
	long arguments[4];
} attempts[] = {
	/* kill */
	{"execve", exec_true, 0, {0}},
	{"fork", call_fork, 0, {0}},
	{"clone", make_process, 0, {0}},
	{"ptrace", NULL, SYS_ptrace, {PTRACE_TRACEME}},
	{"process_vm_readv", read_parent, 0, {0}},
	{"socket of IPv4", NULL, SYS_socket, {AF_INET, SOCK_STREAM}},
	{"socket of IPv6", NULL, SYS_socket, {AF_INET6, SOCK_DGRAM}},
	{"socket of Unix", NULL, SYS_socket, {AF_UNIX, SOCK_STREAM}},
	{"socket of netlink", NULL, SYS_socket, {AF_NETLINK, SOCK_RAW, 12}},
	{"socket of packets", NULL, SYS_socket, {AF_PACKET, SOCK_RAW}},
	{"socketpair", NULL, SYS_socketpair, {AF_UNIX, SOCK_STREAM}},
	/* EPERM */
	{"mount", NULL, SYS_mount, {0}},
	{"umount2", NULL, SYS_umount2, {0}},
	{"chroot", NULL, SYS_chroot, {0}},
	{"pivot_root", NULL, SYS_pivot_root, {0}},
	{"unshare", NULL, SYS_unshare, {CLONE_NEWUSER}},
	{"setns", NULL, SYS_setns, {0}},
	{"setuid", NULL, SYS_setuid, {0}},
	{"setgid", NULL, SYS_setgid, {0}},
	{"capset", NULL, SYS_capset, {0}},
	{"prctl", NULL, SYS_prctl, {PR_SET_DUMPABLE, 1}},
	{"seccomp", NULL, SYS_seccomp, {0}},
	{"bpf", NULL, SYS_bpf, {0}},
	{"perf_event_open", NULL, SYS_perf_event_open, {0}},
	{"io_uring_setup", NULL, SYS_io_uring_setup, {1}},
	{"userfaultfd", NULL, SYS_userfaultfd, {0}},
	{"keyctl", NULL, SYS_keyctl, {0}},
	{"add_key", NULL, SYS_add_key, {0}},
	{"init_module", NULL, SYS_init_module, {0}},
	{"finit_module", NULL, SYS_finit_module, {0}},
	{"kexec_load", NULL, SYS_kexec_load, {0}},
	{"reboot", NULL, SYS_reboot, {0}},
	{"settimeofday", NULL, SYS_settimeofday, {0}},
	{"clock_settime", NULL, SYS_clock_settime, {0}},
	{"sethostname", NULL, SYS_sethostname, {0}},
	{"setrlimit", set_limit, 0, {0}},
	{"setpriority", NULL, SYS_setpriority, {0}},
	{"sched_setscheduler", NULL, SYS_sched_setscheduler, {0}},
	{"swapoff", NULL, SYS_swapoff, {0}},
	{"syslog", NULL, SYS_syslog, {0}},
	{"open_by_handle_at", NULL, SYS_open_by_handle_at, {0}},
	{"mknodat", NULL, SYS_mknodat, {AT_FDCWD, 0, S_IFCHR, 0}},
	{"fchmod", NULL, SYS_fchmod, {2, 0777}},
	{"fchown", NULL, SYS_fchown, {2, 0, 0}},
	{"fsetxattr", NULL, SYS_fsetxattr, {2}},
	{"ioctl", NULL, SYS_ioctl, {0, TIOCSTI}},
	{"kill", NULL, SYS_kill, {1, 0}},
	{"pidfd_open", NULL, SYS_pidfd_open, {1}},
	{"memfd_create", NULL, SYS_memfd_create, {0}},
	{"accept4", NULL, SYS_accept4, {0}},
	{"listen", NULL, SYS_listen, {0}},
	{"personality", NULL, SYS_personality, {0xffffffff}},
	{"quotactl", NULL, SYS_quotactl, {0}},
	{"landlock_restrict_self", NULL, SYS_landlock_restrict_self, {-1}},
};

static int attempt(lua_State *L)
{
	const char *name = luaL_checkstring(L, 1);

	for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
		const long *a = attempts[i].arguments;
		long result;

		if (strcmp(attempts[i].name, name) != 0)
			continue;
		errno = 0;
		result = attempts[i].call ? attempts[i].call()
					  : syscall(attempts[i].number, a[0], a[1], a[2], a[3]);
		if (result < 0) {
			lua_pushnil(L);
			lua_pushinteger(L, errno);
			return 2;
		}
		lua_pushinteger(L, result);
		return 1;
	}
	return luaL_error(L, "no attempt '%s'", name);
}

int luaopen_attempts(lua_State *L);

__attribute__((visibility("default"))) int luaopen_attempts(lua_State *L)
{
	lua_pushcfunction(L, attempt);
	return 1;
}
