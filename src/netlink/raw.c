#include "netlink/raw.h"

#include <errno.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "packet/offload.h"

#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif

static int set_option(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value));
}

static int open_socket(int family)
{
	/* Of what arrives for protocol 255 nothing is kept: nobody reads here. */
	struct sock_filter nothing = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = {.len = 1, .filter = &nothing};
	int fd = socket(family, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
	int error;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) == 0 &&
	    set_option(fd, SOL_SOCKET, SO_BROADCAST, 1) == 0 &&
	    (family == AF_INET ? set_option(fd, IPPROTO_IP, IP_HDRINCL, 1)
			       : set_option(fd, IPPROTO_IPV6, IPV6_HDRINCL, 1)) == 0)
		return fd;
	error = errno;
	close(fd);
	return -error;
}

struct nq_raw_probes {
	pthread_mutex_t lock;
	/* Connected, to learn of routes, and bound, to learn of addresses; -errno: not there. */
	int route4, route6, own4, own6;
};

static int open_probe(int family)
{
	int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

void nq_raw_open(struct nq_raw *raw)
{
	raw->probes = NULL;
	raw->fd4 = open_socket(AF_INET);
	raw->fd6 = open_socket(AF_INET6);
}

int nq_raw_open_probes(struct nq_raw *raw)
{
	struct nq_raw_probes *probes = calloc(1, sizeof(*probes));

	if (!probes)
		return -ENOMEM;
	pthread_mutex_init(&probes->lock, NULL);
	probes->route4 = open_probe(AF_INET);
	probes->own4 = open_probe(AF_INET);
	probes->route6 = open_probe(AF_INET6);
	probes->own6 = open_probe(AF_INET6);
	raw->probes = probes;
	return 0;
}

static void close_probes(struct nq_raw_probes *probes)
{
	const int fds[] = {probes->route4, probes->route6, probes->own4, probes->own6};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	pthread_mutex_destroy(&probes->lock);
	free(probes);
}

void nq_raw_close(struct nq_raw *raw)
{
	if (raw->probes)
		close_probes(raw->probes);
	raw->probes = NULL;
	if (raw->fd4 >= 0)
		close(raw->fd4);
	if (raw->fd6 >= 0)
		close(raw->fd6);
	raw->fd4 = raw->fd6 = -EBADF;
}

union address {
	struct sockaddr any;
	struct sockaddr_in ip4;
	struct sockaddr_in6 ip6;
};

/* Returns its length. */
static socklen_t make_address(union address *address, uint8_t version, const uint8_t *host,
			      unsigned interface)
{
	memset(address, 0, sizeof(*address));
	if (version == 4) {
		address->ip4.sin_family = AF_INET;
		memcpy(&address->ip4.sin_addr, host, 4);
		return sizeof(address->ip4);
	}
	address->ip6.sin6_family = AF_INET6;
	memcpy(&address->ip6.sin6_addr, host, 16);
	/* Only those of one link need to be told which. */
	if (IN6_IS_ADDR_LINKLOCAL(&address->ip6.sin6_addr) ||
	    IN6_IS_ADDR_MC_LINKLOCAL(&address->ip6.sin6_addr))
		address->ip6.sin6_scope_id = interface;
	return sizeof(address->ip6);
}

union control {
	struct cmsghdr head; /* for its alignment */
	uint8_t bytes[CMSG_SPACE(sizeof(uint32_t)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

static void put_control(struct msghdr *message, int level, int type, const void *data, size_t size)
{
	struct cmsghdr *head =
		(struct cmsghdr *)((uint8_t *)message->msg_control + message->msg_controllen);

	head->cmsg_level = level;
	head->cmsg_type = type;
	head->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(head), data, size);
	message->msg_controllen += CMSG_SPACE(size);
}

/* `control` is what the message's control data are written to. */
static void put_way(struct msghdr *message, union control *control, uint8_t version,
		    const struct nq_raw_way *way)
{
	memset(control, 0, sizeof(*control));
	message->msg_control = control;
	message->msg_controllen = 0;
	if (way->mark)
		put_control(message, SOL_SOCKET, SO_MARK, &way->mark, sizeof(way->mark));
	if (way->interface && version == 4) {
		struct in_pktinfo info = {.ipi_ifindex = (int)way->interface};

		put_control(message, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	} else if (way->interface) {
		struct in6_pktinfo info = {.ipi6_ifindex = way->interface};

		put_control(message, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	}
	if (message->msg_controllen == 0)
		message->msg_control = NULL;
}

/*
 * A UDP socket, new or one of the probes, which is this thread's until end_probe; it is neither
 * connected nor bound. Or -errno.
 */
static int begin_probe(const struct nq_raw *raw, uint8_t version, bool own)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct nq_raw_probes *probes = raw ? raw->probes : NULL;
	int fd;

	if (!probes)
		return open_probe(version == 4 ? AF_INET : AF_INET6);
	if (version == 4)
		fd = own ? probes->own4 : probes->route4;
	else
		fd = own ? probes->own6 : probes->route6;
	if (fd < 0)
		return fd;
	pthread_mutex_lock(&probes->lock);
	(void)connect(fd, &none, sizeof(none));
	return fd;
}

static void end_probe(const struct nq_raw *raw, int fd)
{
	if (raw && raw->probes)
		pthread_mutex_unlock(&raw->probes->lock);
	else
		close(fd);
}

/* A probe connected to the host, which sends nothing: it knows the route. Or -errno. */
static int connect_probe(const struct nq_raw *raw, uint8_t version, const uint8_t *host,
			 const struct nq_raw_way *way)
{
	union address address;
	socklen_t size = make_address(&address, version, host, way->interface);
	bool used = raw && raw->probes; /* by others, with marks and interfaces of their own */
	int fd = begin_probe(raw, version, false);
	int error;

	if (fd < 0)
		return fd;
	if (version == 4)
		address.ip4.sin_port = htons(9); /* RFC 863's discard; 0 is not taken */
	else
		address.ip6.sin6_port = htons(9);
	if (((!way->mark && !used) || set_option(fd, SOL_SOCKET, SO_MARK, (int)way->mark) == 0) &&
	    ((!way->interface && !used) ||
	     set_option(fd, SOL_SOCKET, SO_BINDTOIFINDEX, (int)way->interface) == 0) &&
	    connect(fd, &address.any, size) == 0)
		return fd;
	error = errno;
	end_probe(raw, fd);
	return -error;
}

/* Bytes that the route to the host carries, or -errno. */
static int find_mtu(const struct nq_raw *raw, uint8_t version, const uint8_t *host,
		    const struct nq_raw_way *way)
{
	int fd = connect_probe(raw, version, host, way);
	socklen_t size = sizeof(int);
	int mtu = 0;

	if (fd < 0)
		return fd;
	if (getsockopt(fd, version == 4 ? IPPROTO_IP : IPPROTO_IPV6,
		       version == 4 ? IP_MTU : IPV6_MTU, &mtu, &size) < 0)
		mtu = -errno;
	end_probe(raw, fd);
	return mtu;
}

static int send_piece(int fd, const struct msghdr *head, const uint8_t *bytes, size_t length)
{
	struct iovec piece = {(void *)(uintptr_t)bytes, length};
	struct msghdr message = *head;

	message.msg_iov = &piece;
	message.msg_iovlen = 1;
	while (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

/* Sends the packet's pieces, each through memory of its own: their number, or -errno. */
static int send_pieces(int fd, const struct msghdr *message, const struct nq_offload *offload)
{
	uint8_t out[NQ_RAW_MOST];

	for (uint32_t i = 0; i < offload->count; i++) {
		uint32_t size = nq_offload_write(offload, i, out);
		int error = send_piece(fd, message, out, size);

		if (error)
			return error;
	}
	return (int)offload->count;
}

static int send_whole(int fd, const struct msghdr *message, const struct nq_offload *offload)
{
	int error;

	if (!nq_offload_is_plain(offload))
		return send_pieces(fd, message, offload);
	error = send_piece(fd, message, offload->bytes, offload->length);
	return error ? error : 1;
}

int nq_raw_send(const struct nq_raw *raw, const uint8_t *bytes, size_t length,
		const struct nq_raw_way *way)
{
	uint8_t version = bytes[0] >> 4;
	const uint8_t *host = bytes + (version == 4 ? 16 : 24);
	int fd = version == 4 ? raw->fd4 : raw->fd6;
	struct nq_offload offload;
	union address address;
	union control control;
	struct msghdr message = {.msg_name = &address};
	int result;

	if (fd < 0)
		return fd;
	message.msg_namelen = make_address(&address, version, host, way->interface);
	put_way(&message, &control, version, way);
	nq_offload_begin(&offload, bytes, (uint32_t)length);
	result = send_whole(fd, &message, &offload);
	if (result == -EMSGSIZE) {
		int mtu = find_mtu(raw, version, host, way);

		if (mtu > 0 && nq_offload_cut(&offload, (uint32_t)mtu) && offload.count > 1)
			result = send_pieces(fd, &message, &offload);
	}
	return result;
}

/* Whether the address is one of this host's: a socket can be bound to it. */
static bool is_own(const struct nq_raw *raw, uint8_t version, const uint8_t *host,
		   unsigned interface)
{
	union address address;
	socklen_t size = make_address(&address, version, host, interface);
	int fd = begin_probe(raw, version, true);
	bool own = fd >= 0 && bind(fd, &address.any, size) == 0;

	if (fd >= 0)
		end_probe(raw, fd);
	return own;
}

bool nq_raw_is_broadcast(const struct nq_raw *raw, uint8_t version, const uint8_t *target,
			 const struct nq_raw_way *way)
{
	int fd;

	if (version != 4)
		return false;
	/* A socket that was not asked for it may not send to such. */
	fd = connect_probe(raw, version, target, way);
	if (fd >= 0)
		end_probe(raw, fd);
	return fd == -EACCES;
}

int nq_raw_source(const struct nq_raw *raw, uint8_t version, const uint8_t *target,
		  const uint8_t *sender, const struct nq_raw_way *way, uint8_t *source)
{
	size_t size = version == 4 ? 4 : 16;
	union address address;
	socklen_t length = sizeof(address);
	int fd, error = 0;

	if (is_own(raw, version, target, way->interface)) {
		memcpy(source, target, size);
		return 0;
	}
	fd = connect_probe(raw, version, sender, way);
	if (fd < 0)
		return fd;
	if (getsockname(fd, &address.any, &length) < 0)
		error = -errno;
	else if (version == 4)
		memcpy(source, &address.ip4.sin_addr, size);
	else
		memcpy(source, &address.ip6.sin6_addr, size);
	end_probe(raw, fd);
	return error;
}

/* Asks the kernel about an interface: 0 or -errno. */
static int ask_interface(const struct nq_raw_probes *probes, unsigned long what, struct ifreq *ask)
{
	int fd = probes->route4 >= 0 ? probes->route4 : probes->route6;

	return ioctl(fd, what, ask) < 0 ? -errno : 0;
}

bool nq_raw_interface_name(const struct nq_raw *raw, unsigned index, char *name)
{
	struct ifreq ask = {.ifr_ifindex = (int)index};

	if (!raw || !raw->probes)
		return if_indextoname(index, name) != NULL;
	if (ask_interface(raw->probes, SIOCGIFNAME, &ask) < 0)
		return false;
	memcpy(name, ask.ifr_name, IF_NAMESIZE);
	return true;
}

unsigned nq_raw_interface_index(const struct nq_raw *raw, const char *name)
{
	struct ifreq ask = {.ifr_ifindex = 0};

	if (!raw || !raw->probes)
		return if_nametoindex(name);
	if (strlen(name) >= IF_NAMESIZE)
		return 0;
	strcpy(ask.ifr_name, name);
	return ask_interface(raw->probes, SIOCGIFINDEX, &ask) < 0 ? 0 : (unsigned)ask.ifr_ifindex;
}
