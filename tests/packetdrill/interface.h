/*
 * interface.h - packetdrill's published interface to a stack in a shared library.
 *
 * Owns: nothing; the order and the types of the members are what a packetdrill binary expects at run time.
 * Core: tests only.
 * Spec: packetdrill's shared-object interface: the library exports packetdrill_interface_init(), which fills the table.
 */
#ifndef TICKWIRE_PACKETDRILL_INTERFACE_H
#define TICKWIRE_PACKETDRILL_INTERFACE_H

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

/* Every call but free() is the POSIX or Linux one of its name, with the library's own pointer before its arguments. */
struct packetdrill_interface {
	void *userdata;
	void (*free)(void *user);
	int (*socket)(void *user, int domain, int type, int protocol);
	int (*bind)(void *user, int fd, const struct sockaddr *addr, socklen_t len);
	int (*listen)(void *user, int fd, int backlog);
	int (*accept)(void *user, int fd, struct sockaddr *addr, socklen_t *len);
	int (*connect)(void *user, int fd, const struct sockaddr *addr, socklen_t len);
	ssize_t (*read)(void *user, int fd, void *buf, size_t len);
	ssize_t (*readv)(void *user, int fd, const struct iovec *iov, int count);
	ssize_t (*recv)(void *user, int fd, void *buf, size_t len, int flags);
	ssize_t (*recvfrom)(void *user, int fd, void *buf, size_t len, int flags, struct sockaddr *addr, socklen_t *addr_len);
	ssize_t (*recvmsg)(void *user, int fd, struct msghdr *msg, int flags);
	ssize_t (*write)(void *user, int fd, const void *buf, size_t len);
	ssize_t (*writev)(void *user, int fd, const struct iovec *iov, int count);
	ssize_t (*send)(void *user, int fd, const void *buf, size_t len, int flags);
	ssize_t (*sendto)(void *user, int fd, const void *buf, size_t len, int flags, const struct sockaddr *addr,
			  socklen_t addr_len);
	ssize_t (*sendmsg)(void *user, int fd, const struct msghdr *msg, int flags);
	int (*fcntl)(void *user, int fd, int cmd, ...);
	int (*ioctl)(void *user, int fd, unsigned long request, ...);
	int (*close)(void *user, int fd);
	int (*shutdown)(void *user, int fd, int how);
	int (*getsockopt)(void *user, int fd, int level, int name, void *value, socklen_t *len);
	int (*setsockopt)(void *user, int fd, int level, int name, const void *value, socklen_t len);
	int (*poll)(void *user, struct pollfd *fds, nfds_t count, int timeout_ms);
	/* An IP packet for the stack. 0, or -1. */
	int (*netdev_send)(void *user, const void *packet, size_t len);
	/* The next IP packet from the stack, at most *len bytes, and when it was sent; *len is 0 where none came. 0, or -1. */
	int (*netdev_receive)(void *user, void *packet, size_t *len, long long *at_us);
	int (*usleep)(void *user, useconds_t us);
	int (*gettimeofday)(void *user, struct timeval *tv, struct timezone *tz);
	int (*epoll_create)(void *user, int size);
	int (*epoll_ctl)(void *user, int epfd, int op, int fd, struct epoll_event *event);
	int (*epoll_wait)(void *user, int epfd, struct epoll_event *events, int count, int timeout_ms);
	int (*pipe)(void *user, int fds[2]);
	int (*splice)(void *user, int fd_in, loff_t *off_in, int fd_out, loff_t *off_out, size_t len, unsigned int flags);
};

/* `flags` is packetdrill's --so_flags: local=A.B.C.D,prefix=N,gateway=A.B.C.D,mtu=N,… or NULL; see README.md. */
void packetdrill_interface_init(const char *flags, struct packetdrill_interface *table);

#endif
