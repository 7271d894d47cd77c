/*
 * tap_peer.c - the kernel's side of tap_bulk.c: sends or takes bulk through ordinary sockets, as fast as they do.
 *
 * Owns: one socket.
 * Core: a measuring aid, driven by tests/bench/bulk; it runs until it is told to end, or until the other side resets.
 * Spec: none.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103 /* linux/udp.h */
#endif
#define SOL_UDP_LEVEL 17
#define BATCH         32u
#define BUFFER_BYTES  (256u << 10)

static const char usage[] =
	"Usage: tap_peer udp-send|udp-segment|udp-take|tcp-send|tcp-take ADDRESS PORT [BYTES]\n"
	"udp-*: datagrams of BYTES (1472); udp-segment has the kernel cut long ones; udp-take binds to ADDRESS.\n";
static char buffer[BUFFER_BYTES];
static volatile sig_atomic_t told_to_end;

static void on_signal(int signo)
{
	(void)signo;
	told_to_end = 1;
}

static int fail(const char *what)
{
	fprintf(stderr, "tap_peer: %s: %s\n", what, strerror(errno));
	return 71;
}

/* Full queues, and a reset by the other side, are how a round goes and ends. */
static int loop_over(int fd, ssize_t (*step)(int fd), unsigned long long *bytes)
{
	while (!told_to_end) {
		ssize_t n = step(fd);

		if (n > 0)
			*bytes += (unsigned long long)n;
		else if (n == 0 || errno == ECONNRESET || errno == EPIPE)
			return 0;
		else if (errno != EINTR && errno != ENOBUFS && errno != EAGAIN && errno != ECONNREFUSED)
			return fail("the socket");
	}
	return 0;
}

static struct mmsghdr batch[BATCH];
static struct iovec whole;

static ssize_t send_batch(int fd)
{
	int n = sendmmsg(fd, batch, BATCH, 0);

	return n <= 0 ? n : n * (ssize_t)whole.iov_len;
}

static ssize_t take_batch(int fd)
{
	int n = recvmmsg(fd, batch, BATCH, MSG_WAITFORONE, NULL);

	return n <= 0 ? n : n * (ssize_t)whole.iov_len;
}

static ssize_t send_long(int fd)
{
	return send(fd, buffer, whole.iov_len, 0);
}

static ssize_t send_stream(int fd)
{
	return send(fd, buffer, sizeof buffer, MSG_NOSIGNAL);
}

/* tcp(7): thrown away in the kernel, as tap_bulk throws away what it receives; the client's core is the narrowest part. */
static ssize_t take_stream(int fd)
{
	return recv(fd, buffer, sizeof buffer, MSG_TRUNC);
}

static int set_up_udp(int fd, const char *mode, const struct sockaddr_in *to, size_t bytes)
{
	int segment = (int)bytes, room = 8 << 20;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
	whole = (struct iovec){buffer, bytes};
	if (strcmp(mode, "udp-segment") == 0) {
		if (setsockopt(fd, SOL_UDP_LEVEL, UDP_SEGMENT, &segment, sizeof segment) != 0)
			return fail("UDP_SEGMENT");
		whole.iov_len = bytes * (63000 / bytes);
	}
	for (unsigned i = 0; i < BATCH; i++)
		batch[i].msg_hdr = (struct msghdr){.msg_iov = &whole, .msg_iovlen = 1};
	if (strcmp(mode, "udp-take") == 0)
		return bind(fd, (const struct sockaddr *)to, sizeof *to) == 0 ? 0 : fail("bind");
	return connect(fd, (const struct sockaddr *)to, sizeof *to) == 0 ? 0 : fail("connect");
}

static double seconds(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void tell(const char *mode, unsigned long long bytes, const struct timespec *from)
{
	struct timespec to;
	struct rusage used;
	double wall;

	clock_gettime(CLOCK_MONOTONIC, &to);
	getrusage(RUSAGE_SELF, &used);
	wall = (double)(to.tv_sec - from->tv_sec) + (double)(to.tv_nsec - from->tv_nsec) / 1e9;
	printf("{\"peer\": \"%s\", \"seconds\": %.3f, \"bytes\": %llu, \"cpu\": %.3f}\n", mode, wall, bytes,
	       (seconds(used.ru_utime) + seconds(used.ru_stime)) / wall);
}

static int run(const char *mode, const struct sockaddr_in *to, size_t bytes)
{
	static const struct {
		const char *name;
		ssize_t (*step)(int fd);
	} modes[] = {{"udp-send", send_batch},
		     {"udp-segment", send_long},
		     {"udp-take", take_batch},
		     {"tcp-send", send_stream},
		     {"tcp-take", take_stream}};
	bool udp = strncmp(mode, "udp", 3) == 0;
	unsigned long long count = 0;
	struct timespec from;
	int fd, status;

	for (unsigned i = 0; i < sizeof modes / sizeof modes[0]; i++) {
		if (strcmp(mode, modes[i].name) != 0)
			continue;
		fd = socket(AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
		if (fd < 0)
			return fail("socket");
		clock_gettime(CLOCK_MONOTONIC, &from);
		if (udp)
			status = set_up_udp(fd, mode, to, bytes);
		else
			status = connect(fd, (const struct sockaddr *)to, sizeof *to) == 0 ? 0 : fail("connect");
		if (status == 0)
			status = loop_over(fd, modes[i].step, &count);
		if (status == 0)
			tell(mode, count, &from);
		close(fd);
		return status;
	}
	fputs(usage, stderr);
	return 64;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	/* No SA_RESTART: a blocked call must come back to see that it is to end. */
	struct sigaction sa = {.sa_handler = on_signal};
	long port = argc > 3 ? strtol(argv[3], NULL, 10) : 0, bytes = argc > 4 ? strtol(argv[4], NULL, 10) : 1472;

	if (argc < 4 || argc > 5 || inet_pton(AF_INET, argv[2], &to.sin_addr) != 1 || port < 1 || port > 65535 || bytes < 1 ||
	    bytes > 63000) {
		fputs(usage, stderr);
		return 64;
	}
	to.sin_port = htons((uint16_t)port);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	return run(argv[1], &to, (size_t)bytes);
}
