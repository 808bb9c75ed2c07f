/* Runs a command as if this kernel lacked something: without landlock|nfnetlink COMMAND... */
#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
/* The next instruction, or one `otherwise` behind it. */
#define WHERE(value, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, otherwise)
#define FAIL(error) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int main(int argc, char **argv)
{
	struct sock_filter landlock[] = {
		LOAD(nr),
		WHERE(SYS_landlock_create_ruleset, 1),
		FAIL(ENOSYS),
		ALLOW,
	};
	struct sock_filter nfnetlink[] = {
		LOAD(nr),
		WHERE(SYS_socket, 5),
		LOAD(args),
		WHERE(AF_NETLINK, 3),
		LOAD(args[2]),
		WHERE(NETLINK_NETFILTER, 1),
		FAIL(EPROTONOSUPPORT),
		ALLOW,
	};
	struct sock_fprog program = {sizeof(landlock) / sizeof(landlock[0]), landlock};

	if (argc > 1 && strcmp(argv[1], "nfnetlink") == 0)
		program = (struct sock_fprog){sizeof(nfnetlink) / sizeof(nfnetlink[0]), nfnetlink};
	if (argc < 3 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) {
		perror("without");
		return 127;
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 127;
}
