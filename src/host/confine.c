#include "host/confine.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#ifdef NQ_HAVE_SECCOMP

#include <net/if.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <ucontext.h>

#include "host/log.h"

enum { CALLS = 1024, NAME_SIZE = 32 };

/* What a worker, its Lua states and their C modules do between two packets. Names that libseccomp
 * or this machine does not know are passed over. */
static const char *const allowed[] = {
	/* packets, verdicts, waiting */
	"recvmmsg",
	"recvmmsg_time64",
	"recvmsg",
	"recvfrom",
	"recv",
	"sendmsg",
	"sendto",
	"send",
	"poll",
	"ppoll",
	"ppoll_time64",
	"select",
	"_newselect",
	"pselect6",
	"pselect6_time64",
	"epoll_wait",
	"epoll_pwait",
	"epoll_pwait2",
	"epoll_ctl",
	"epoll_create",
	"epoll_create1",
	"eventfd2",
	"timerfd_create",
	"timerfd_settime",
	"timerfd_settime64",
	"timerfd_gettime",
	"timerfd_gettime64",
	"getsockopt",
	"setsockopt",
	"getsockname",
	"getpeername",
	"connect",
	"bind",
	"shutdown",
	"pipe",
	"pipe2",
	/* memory, threads, time */
	"mmap",
	"mmap2",
	"munmap",
	"mprotect",
	"mremap",
	"madvise",
	"brk",
	"mincore",
	"msync",
	"membarrier",
	"futex",
	"futex_time64",
	"futex_waitv",
	"rseq",
	"set_robust_list",
	"get_robust_list",
	"sched_yield",
	"sched_getaffinity",
	"sched_getparam",
	"sched_getscheduler",
	"sched_get_priority_max",
	"sched_get_priority_min",
	"exit",
	"exit_group",
	"clock_gettime",
	"clock_gettime64",
	"clock_getres",
	"clock_getres_time64",
	"clock_nanosleep",
	"clock_nanosleep_time64",
	"nanosleep",
	"gettimeofday",
	"time",
	"times",
	"getrusage",
	"getrandom",
	"restart_syscall",
	"timer_create",
	"timer_settime",
	"timer_settime64",
	"timer_gettime",
	"timer_delete",
	"setitimer",
	"getitimer",
	"alarm",
	"pause",
	/* signals */
	"rt_sigaction",
	"rt_sigprocmask",
	"rt_sigreturn",
	"rt_sigpending",
	"rt_sigtimedwait",
	"rt_sigtimedwait_time64",
	"rt_sigsuspend",
	"sigaltstack",
	"sigreturn",
	"sigaction",
	"sigprocmask",
	"signalfd4",
	/* who it is */
	"getpid",
	"getppid",
	"gettid",
	"getuid",
	"geteuid",
	"getgid",
	"getegid",
	"getgroups",
	"getresuid",
	"getresgid",
	"getpgrp",
	"getpgid",
	"getsid",
	"uname",
	"sysinfo",
	"getcpu",
	"wait4",
	"waitid",
	/* files: which ones is Landlock's to say */
	"open",
	"openat",
	"openat2",
	"close",
	"close_range",
	"read",
	"write",
	"readv",
	"writev",
	"pread64",
	"pwrite64",
	"preadv",
	"pwritev",
	"lseek",
	"_llseek",
	"fstat",
	"fstat64",
	"stat",
	"stat64",
	"lstat",
	"lstat64",
	"newfstatat",
	"fstatat64",
	"statx",
	"statfs",
	"fstatfs",
	"access",
	"faccessat",
	"faccessat2",
	"readlink",
	"readlinkat",
	"getcwd",
	"getdents",
	"getdents64",
	"fcntl",
	"fcntl64",
	"dup",
	"dup2",
	"dup3",
	"flock",
	"fsync",
	"fdatasync",
	"ftruncate",
	"ftruncate64",
	"fallocate",
	"fadvise64",
	"rename",
	"renameat",
	"renameat2",
	"unlink",
	"unlinkat",
	"mkdir",
	"mkdirat",
	"rmdir",
	"symlink",
	"symlinkat",
	"umask",
	"copy_file_range",
	"sendfile",
	"sendfile64",
	"splice",
};

static const char *const killing[] = {
	"execve",	    "execveat",		 "fork",	"vfork",  "ptrace",
	"process_vm_readv", "process_vm_writev", "pidfd_getfd", "socket", "socketpair",
};

/*
 * For the handler of SIGSYS, which is given nothing else to look at: the names of calls by number,
 * and which of them were told. Written before the worker has threads; only `told` after.
 */
static struct {
	char (*names)[NAME_SIZE];
	uint64_t told[CALLS / 64];
} refused;

/* The result of the call that the filter trapped, in the registers it returns with. */
static bool set_result(ucontext_t *context, int error)
{
#if defined(__x86_64__)
	context->uc_mcontext.gregs[REG_RAX] = -error;
	return true;
#elif defined(__aarch64__)
	context->uc_mcontext.regs[0] = (unsigned long long)-error;
	return true;
#else
	(void)context;
	(void)error;
	return false;
#endif
}

static bool can_trap(void)
{
	ucontext_t context;

	return set_result(&context, EPERM);
}

/* In the thread that made the call, between two instructions of it. */
static void tell_refusal(int signal, siginfo_t *info, void *context)
{
	int saved = errno;
	unsigned number = (unsigned)info->si_syscall % CALLS;
	uint64_t bit = 1ULL << number % 64;

	(void)signal;
	set_result(context, EPERM);
	if (!(__atomic_fetch_or(&refused.told[number / 64], bit, __ATOMIC_RELAXED) & bit))
		nq_log(NQ_LOG_WARN,
		       "the script made the system call %s (%d), which --confine refuses "
		       "(EPERM); it is told once",
		       refused.names[number][0] ? refused.names[number] : "unknown",
		       info->si_syscall);
	errno = saved;
}

static int handle_refusals(void)
{
	struct sigaction action = {.sa_sigaction = tell_refusal,
				   .sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER};

	refused.names = calloc(CALLS, NAME_SIZE);
	if (!refused.names)
		return -ENOMEM;
	for (int i = 0; i < CALLS; i++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);

		if (name)
			snprintf(refused.names[i], NAME_SIZE, "%s", name);
		free(name);
	}
	return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

/* Adds a rule for a call by name, on conditions; a call that is none here needs none. */
static int add_rule(scmp_filter_ctx filter, uint32_t action, const char *name, unsigned count,
		    const struct scmp_arg_cmp *conditions)
{
	int number = seccomp_syscall_resolve_name(name);
	int error;

	if (number == __NR_SCMP_ERROR)
		return 0;
	error = seccomp_rule_add_array(filter, action, number, count, conditions);
	return error == -EDOM || error == -EEXIST ? 0 : error;
}

static int allow_where(scmp_filter_ctx filter, const char *name, struct scmp_arg_cmp condition)
{
	return add_rule(filter, SCMP_ACT_ALLOW, name, 1, &condition);
}

static int add_conditional(scmp_filter_ctx filter)
{
	static const unsigned long ioctls[] = {SIOCGIFNAME, SIOCGIFINDEX, FIONREAD, TCGETS,
					       TIOCGWINSZ,  FIONBIO,	  FIOCLEX};
	const struct scmp_arg_cmp thread = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD);
	const struct scmp_arg_cmp process = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
	scmp_datum_t self = (scmp_datum_t)getpid();
	int error = 0;

	for (size_t i = 0; i < sizeof(ioctls) / sizeof(ioctls[0]) && !error; i++)
		error = allow_where(filter, "ioctl", SCMP_A1_32(SCMP_CMP_EQ, (uint32_t)ioctls[i]));
	/* Threads, but no processes. The C library tries clone3 first, whose flags no filter sees.
	 */
	if (!error)
		error = allow_where(filter, "clone", thread);
	if (!error)
		error = add_rule(filter, SCMP_ACT_KILL_PROCESS, "clone", 1, &process);
	if (!error)
		error = add_rule(filter, SCMP_ACT_ERRNO(ENOSYS), "clone3", 0, NULL);
	/* Signals to itself: raise, abort, the watchdog. */
	if (!error)
		error = allow_where(filter, "tgkill", SCMP_A0(SCMP_CMP_EQ, self));
	if (!error)
		error = allow_where(filter, "kill", SCMP_A0(SCMP_CMP_EQ, self));
	if (!error)
		error = allow_where(filter, "rt_tgsigqueueinfo", SCMP_A0(SCMP_CMP_EQ, self));
	if (!error)
		error = allow_where(filter, "prctl", SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	if (!error)
		error = allow_where(filter, "prctl", SCMP_A0(SCMP_CMP_EQ, PR_GET_NAME));
	/* Limits may be read. */
	if (!error)
		error = allow_where(filter, "prlimit64", SCMP_A2(SCMP_CMP_EQ, 0));
	return error;
}

static int add_rules(scmp_filter_ctx filter)
{
	int error = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);

	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && !error; i++)
		error = add_rule(filter, SCMP_ACT_ALLOW, allowed[i], 0, NULL);
	for (size_t i = 0; i < sizeof(killing) / sizeof(killing[0]) && !error; i++)
		error = add_rule(filter, SCMP_ACT_KILL_PROCESS, killing[i], 0, NULL);
	return error ? error : add_conditional(filter);
}

static int filter_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(can_trap() ? SCMP_ACT_TRAP : SCMP_ACT_ERRNO(EPERM));
	int error = filter ? add_rules(filter) : -ENOMEM;

	if (!error)
		error = handle_refusals();
	if (!error)
		error = seccomp_load(filter);
	seccomp_release(filter);
	return error;
}

/* A ruleset, or -errno with *failure. */
static int make_ruleset(const struct nq_landlock *files, struct nq_failure *failure)
{
	const char *path;
	int ruleset = nq_landlock_make(files, &path);

	if (ruleset == -ENOSYS || ruleset == -EOPNOTSUPP)
		return nq_fail(failure, 69, -ruleset,
			       "this kernel does not support --confine: it needs Landlock (Linux "
			       "5.13 or newer, CONFIG_SECURITY_LANDLOCK, and landlock among the "
			       "modules of its parameter lsm=)");
	if (ruleset < 0 && path)
		return nq_fail(failure, 66, -ruleset, "cannot confine the worker to %s: %s", path,
			       strerror(-ruleset));
	if (ruleset < 0)
		return nq_fail(failure, 69, -ruleset, "cannot use Landlock: %s",
			       strerror(-ruleset));
	return ruleset;
}

int nq_confine_check(const struct nq_landlock *files, struct nq_failure *failure)
{
	int ruleset = make_ruleset(files, failure);

	if (ruleset < 0)
		return ruleset;
	close(ruleset);
	/* Asked for with no filter at all: EFAULT from a kernel that has the mode. */
	if (prctl(PR_SET_SECCOMP, 2, NULL, 0, 0) < 0 && errno == EINVAL)
		return nq_fail(failure, 69, ENOSYS,
			       "this kernel does not support --confine: it needs system call "
			       "filters (CONFIG_SECCOMP_FILTER)");
	return 0;
}

int nq_confine_enter(const struct nq_landlock *files, struct nq_failure *failure)
{
	int ruleset = make_ruleset(files, failure);
	int error = 0;

	if (ruleset < 0)
		return ruleset;
	tzset(); /* which reads a file */
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		error = -errno;
	if (!error)
		error = nq_landlock_enter(ruleset);
	close(ruleset);
	if (!error)
		error = filter_calls();
	return error ? nq_fail(failure, 69, -error, "cannot confine the worker: %s",
			       strerror(-error))
		     : 0;
}

#else

int nq_confine_check(const struct nq_landlock *files, struct nq_failure *failure)
{
	(void)files;
	return nq_fail(
		failure, 69, ENOTSUP,
		"option '--confine' needs libseccomp, and this build has none: install Debian's "
		"libseccomp-dev (or its like) and build again");
}

int nq_confine_enter(const struct nq_landlock *files, struct nq_failure *failure)
{
	return nq_confine_check(files, failure);
}

#endif
