#include "host/privilege.h"

#include <errno.h>
#include <string.h>

#ifdef NQ_HAVE_CAPNG

#include <cap-ng.h>
#include <grp.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <unistd.h>

static int become(const struct passwd *entry)
{
	capng_flags_t how = CAPNG_CLEAR_BOUNDING;
	bool may_judge;

	if (capng_get_caps_process() < 0)
		return -EPERM;
	may_judge = capng_have_capability(CAPNG_PERMITTED, CAP_NET_ADMIN);
	capng_clear(CAPNG_SELECT_ALL);
	if (may_judge)
		capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_ADMIN);
	errno = EPERM;
	/* Who is that user already, started with the capability as an ambient one, gives up the
	 * rest. */
	if (geteuid() == entry->pw_uid)
		return capng_apply(CAPNG_SELECT_CAPS) < 0 ? -errno : 0;
	if (initgroups(entry->pw_name, entry->pw_gid) < 0)
		return -errno;
	return capng_change_id((int)entry->pw_uid, (int)entry->pw_gid, how) < 0 ? -errno : 0;
}

int nq_privilege_drop(const char *user, struct nq_failure *failure)
{
	const struct passwd *entry;
	int error;

	errno = 0;
	entry = getpwnam(user);
	if (!entry)
		return nq_fail(failure, 64, EINVAL, "option '--user': there is no user '%s'", user);
	if (entry->pw_uid == 0)
		return nq_fail(failure, 64, EINVAL,
			       "option '--user': an ordinary user expected, got '%s'", user);
	error = become(entry);
	if (error)
		return nq_fail(failure, 77, -error,
			       "no privilege to become user %s: %s (run as root, or without "
			       "--user)",
			       user, strerror(-error));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return nq_fail(failure, 69, errno, "cannot set no_new_privs: %s", strerror(errno));
	return 0;
}

#else

int nq_privilege_drop(const char *user, struct nq_failure *failure)
{
	(void)user;
	return nq_fail(failure, 69, ENOTSUP,
		       "option '--user' needs libcap-ng, and this build has none: install Debian's "
		       "libcap-ng-dev (or its like) and build again");
}

#endif
