/*
 * test_packetdrill.c - packetdrill's library, loaded as packetdrill loads it, with packets made by hand.
 *
 * Owns: the library's instance of each test; a second thread where a call blocks, as packetdrill has one.
 * Core: tests only.
 * Spec: packetdrill's shared-object interface; RFC 9293 for what the packets say.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#include "tests/packetdrill/interface.h"

#define FIN       1u
#define SYN       2u
#define RST       4u
#define PSH       8u
#define ACK       16u
#define PORT      8080u
#define PEER_PORT 40000u
#define PEER_ISS  1000u

struct packet {
	uint8_t flags;
	uint32_t seq, ack;
	size_t len; /* of the payload */
	uint16_t sport, dport, window;
	long long at_us;
	const uint8_t *payload;
};

static struct {
	struct packetdrill_interface calls;
	void *handle;
	uint32_t seq, ack; /* the peer's */
	uint16_t own_port, peer_port;
	uint8_t buf[4096];
} rig;

#define CALL(name, ...) rig.calls.name(rig.calls.userdata, __VA_ARGS__)

static void start(const char *flags)
{
	void (*init)(const char *, struct packetdrill_interface *);
	rig.handle = dlopen(PACKETDRILL_SO, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	if (rig.handle == NULL)
		fail_msg("%s", dlerror());
	*(void **)&init = dlsym(rig.handle, "packetdrill_interface_init");
	assert_non_null(*(void **)&init);
	init(flags, &rig.calls);
	rig.seq = PEER_ISS;
	rig.own_port = PORT;
	rig.peer_port = PEER_PORT;
}

static int set_up(void **state)
{
	(void)state;
	start(NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	rig.calls.free(rig.calls.userdata);
	dlclose(rig.handle);
	return 0;
}

/* ---- packets ---- */

static uint32_t add(uint32_t sum, const uint8_t *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
	return sum;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static uint32_t fold(uint32_t sum)
{
	while (sum >> 16 != 0)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static void send_packet(unsigned flags, uint32_t seq, const char *payload)
{
	uint8_t p[1500] = {0x45};
	size_t len = strlen(payload);
	put16(p + 2, (uint32_t)(40 + len));
	p[8] = 64;
	p[9] = 6;
	memcpy(p + 12, (uint8_t[]){198, 19, 0, 1, 198, 18, 0, 2}, 8);
	put16(p + 10, ~fold(add(0, p, 20)));
	put16(p + 20, rig.peer_port);
	put16(p + 22, rig.own_port);
	put32(p + 24, seq);
	put32(p + 28, flags & ACK ? rig.ack : 0);
	p[32] = 5 << 4;
	p[33] = (uint8_t)flags;
	put16(p + 34, 65535);
	memcpy(p + 40, payload, len);
	put16(p + 36, ~fold(add(add(6 + 20 + (uint32_t)len, p + 12, 8), p + 20, 20 + len)));
	assert_int_equal(CALL(netdev_send, p, 40 + len), 0);
}

/* In sequence; what it occupies is counted. */
static void say(unsigned flags, const char *payload)
{
	send_packet(flags, rig.seq, payload);
	rig.seq += (uint32_t)strlen(payload) + ((flags & (SYN | FIN)) != 0);
}

/* The next packet of the stack; its checksums must be right. False: it said nothing. */
static bool hear(struct packet *out)
{
	size_t len = sizeof(rig.buf);
	*out = (struct packet){0};
	assert_int_equal(CALL(netdev_receive, rig.buf, &len, &out->at_us), 0);
	if (len == 0)
		return false;
	const uint8_t *p = rig.buf, *t = p + 20;
	assert_int_equal(p[0], 0x45);
	assert_int_equal(get16(p + 2), len);
	assert_int_equal(fold(add(0, p, 20)), 0xffff);
	assert_int_equal(fold(add(add(6 + (uint32_t)len - 20, p + 12, 8), t, len - 20)), 0xffff);
	size_t header = (size_t)(t[12] >> 4) * 4;
	*out = (struct packet){.flags = t[13],
			       .seq = get32(t + 4),
			       .ack = get32(t + 8),
			       .len = len - 20 - header,
			       .sport = (uint16_t)get16(t),
			       .dport = (uint16_t)get16(t + 2),
			       .window = (uint16_t)get16(t + 14),
			       .at_us = out->at_us,
			       .payload = t + header};
	return true;
}

static struct packet expect(unsigned flags, size_t len)
{
	struct packet p;
	assert_true(hear(&p));
	assert_int_equal(p.flags & (FIN | SYN | RST | ACK), flags);
	assert_int_equal(p.len, len);
	return p;
}

static long long now_us(void)
{
	struct timeval tv;
	assert_int_equal(CALL(gettimeofday, &tv, NULL), 0);
	return (long long)tv.tv_sec * 1000000 + tv.tv_usec;
}

/* ---- sockets ---- */

static int listener(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	int fd = CALL(socket, AF_INET, SOCK_STREAM, IPPROTO_TCP), one = 1;
	assert_true(fd >= 0);
	assert_int_equal(CALL(setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(CALL(bind, fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(CALL(listen, fd, 1), 0);
	return fd;
}

static void handshake(void)
{
	say(SYN, "");
	struct packet p = expect(SYN | ACK, 0);
	assert_int_equal(p.ack, rig.seq);
	assert_int_equal(p.sport, PORT);
	rig.ack = p.seq + 1;
	say(ACK, "");
}

static int accepted(int fd)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int child = CALL(accept, fd, (struct sockaddr *)&peer, &len);
	assert_true(child >= 0);
	assert_int_equal(ntohs(peer.sin_port), PEER_PORT);
	return child;
}

/* ---- tests ---- */

static void every_call_of_the_interface_is_there(void **state)
{
	(void)state;
	void *members[sizeof(rig.calls) / sizeof(void *)];
	memcpy(members, &rig.calls, sizeof(members));
	assert_int_equal(sizeof(members) / sizeof(members[0]), 33);
	assert_int_equal(offsetof(struct packetdrill_interface, netdev_send), 24 * sizeof(void *));
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		assert_non_null(members[i]);
}

static void a_passive_open_carries_bytes_both_ways_and_closes(void **state)
{
	(void)state;
	char buf[16];
	int fd = listener();
	handshake();
	int child = accepted(fd);
	say(ACK | PSH, "hello");
	struct packet p = expect(ACK, 0);
	assert_int_equal(p.ack, rig.seq);
	assert_int_equal(CALL(read, child, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(CALL(write, child, "answer", 6), 6);
	p = expect(ACK, 6);
	assert_memory_equal(p.payload, "answer", 6);
	rig.ack += 6;
	say(ACK | FIN, "");
	assert_int_equal(CALL(read, child, buf, sizeof(buf)), 0);
	p = expect(ACK, 0);
	assert_int_equal(p.ack, rig.seq);
	assert_int_equal(CALL(close, child), 0);
	p = expect(FIN | ACK, 0);
	rig.ack = p.seq + 1;
	say(ACK, "");
	assert_int_equal(CALL(close, fd), 0);
	assert_false(hear(&p)); /* nobody has anything left to say */
}

static void an_active_open_without_blocking_tells_by_poll_and_so_error(void **state)
{
	(void)state;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PEER_PORT), .sin_addr.s_addr = htonl(0xc6130001)};
	int fd = CALL(socket, AF_INET, SOCK_STREAM, 0), error = -1;
	socklen_t len = sizeof(error);
	assert_int_equal(CALL(fcntl, fd, F_SETFL, (long)O_NONBLOCK), 0);
	assert_int_equal(CALL(connect, fd, (struct sockaddr *)&to, sizeof(to)), -1);
	assert_int_equal(errno, EINPROGRESS);
	struct packet p = expect(SYN, 0);
	struct pollfd poll = {.fd = fd, .events = POLLOUT};
	assert_int_equal(CALL(poll, &poll, 1, 0), 0);
	rig.own_port = p.sport;
	rig.ack = p.seq + 1;
	say(SYN | ACK, "");
	expect(ACK, 0);
	assert_int_equal(CALL(poll, &poll, 1, 0), 1);
	assert_int_equal(poll.revents, POLLOUT);
	assert_int_equal(CALL(getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	assert_int_equal(error, 0);
}

static void a_refused_open_is_econnrefused(void **state)
{
	(void)state;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(PEER_PORT), .sin_addr.s_addr = htonl(0xc6130001)};
	int fd = CALL(socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
	socklen_t len = sizeof(error);
	CALL(connect, fd, (struct sockaddr *)&to, sizeof(to));
	struct packet p = expect(SYN, 0);
	rig.own_port = p.sport;
	rig.ack = p.seq + 1;
	say(RST | ACK, "");
	assert_int_equal(CALL(getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &len), 0);
	assert_int_equal(error, ECONNREFUSED);
}

static void waiting_for_a_packet_moves_the_clock_to_the_retransmission(void **state)
{
	(void)state;
	int fd = listener();
	handshake();
	int child = accepted(fd);
	long long before = now_us();
	assert_int_equal(CALL(write, child, "x", 1), 1);
	struct packet first = expect(ACK, 1), again = expect(ACK, 1);
	assert_int_equal(first.seq, again.seq);
	assert_in_range(first.at_us - before, 0, 1000);
	/* RFC 6298 2.4 with the configured minimum of 200 ms, or RFC 8985 7.2's probe; by the virtual clock. */
	assert_in_range(again.at_us - first.at_us, 1000, 3000000);
	assert_true(now_us() >= again.at_us);
}

static void the_clock_advances_whenever_it_is_asked(void **state)
{
	(void)state;
	long long a = now_us(), b = now_us();
	assert_true(b > a);
	assert_int_equal(CALL(usleep, 1500000), 0);
	assert_in_range(now_us() - b, 1500000, 1500100);
}

static void waiting_for_a_packet_that_never_comes_gives_up(void **state)
{
	(void)state;
	struct packet p;
	listener();
	assert_false(hear(&p));
}

static void tcp_info_tells_state_window_and_round_trip(void **state)
{
	(void)state;
	struct tcp_info info;
	socklen_t len = sizeof(info);
	int fd = listener();
	handshake();
	int child = accepted(fd);
	assert_int_equal(CALL(write, child, "abc", 3), 3);
	struct packet p = expect(ACK, 3);
	assert_int_equal(CALL(getsockopt, child, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	assert_int_equal(len, sizeof(info));
	assert_int_equal(info.tcpi_state, 1);
	assert_int_equal(info.tcpi_unacked, 1);
	assert_int_equal(info.tcpi_snd_mss, 536);   /* RFC 9293 3.7.1: the SYN named none */
	assert_in_range(info.tcpi_snd_cwnd, 4, 28); /* RFC 6928 */
	assert_int_equal(info.tcpi_total_retrans, 0);
	CALL(usleep, 30000);
	rig.ack = p.seq + 3;
	say(ACK, "");
	assert_int_equal(CALL(getsockopt, child, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	assert_int_equal(info.tcpi_unacked, 0);
	assert_in_range(info.tcpi_rtt, 3000, 31000);
	say(ACK | FIN, "");
	expect(ACK, 0);
	assert_int_equal(CALL(getsockopt, child, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	assert_int_equal(info.tcpi_state, 8); /* CLOSE-WAIT */
	int unread = -1;
	assert_int_equal(CALL(ioctl, child, SIOCINQ, &unread), 0);
	assert_int_equal(unread, 0);
}

static void unread_bytes_are_counted_peeked_at_and_reset_by_close(void **state)
{
	(void)state;
	char buf[16];
	int unread = 0;
	int fd = listener();
	handshake();
	int child = accepted(fd);
	say(ACK, "abcdef");
	expect(ACK, 0);
	assert_int_equal(CALL(ioctl, child, SIOCINQ, &unread), 0);
	assert_int_equal(unread, 6);
	assert_int_equal(CALL(recv, child, buf, 4, MSG_PEEK), 4);
	assert_memory_equal(buf, "abcd", 4);
	assert_int_equal(CALL(recv, child, buf, 2, 0), 2);
	assert_memory_equal(buf, "ab", 2);
	struct iovec iov[2] = {{buf, 1}, {buf + 8, 1}};
	assert_int_equal(CALL(readv, child, iov, 2), 2);
	assert_int_equal(buf[0], 'c');
	assert_int_equal(buf[8], 'd');
	assert_int_equal(CALL(close, child), 0);
	expect(RST | ACK, 0); /* RFC 9293 3.6.1 */
}

static void a_reset_is_econnreset(void **state)
{
	(void)state;
	char buf[4];
	int fd = listener();
	handshake();
	int child = accepted(fd);
	say(RST, "");
	assert_int_equal(CALL(read, child, buf, 4), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_int_equal(CALL(write, child, "x", 1), -1);
	assert_int_equal(errno, EPIPE);
}

static void epoll_reports_levels_edges_and_time_outs(void **state)
{
	(void)state;
	char buf[8];
	int fd = listener();
	handshake();
	int child = accepted(fd), epfd = CALL(epoll_create, 1);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = 77}, got[2];
	assert_true(epfd >= 0);
	assert_int_equal(CALL(epoll_ctl, epfd, EPOLL_CTL_ADD, child, &event), 0);
	assert_int_equal(CALL(epoll_wait, epfd, got, 2, 0), 0);
	say(ACK, "ab");
	assert_int_equal(CALL(epoll_wait, epfd, got, 2, 0), 1);
	assert_int_equal(got[0].data.fd, 77);
	assert_int_equal(got[0].events, EPOLLIN);
	assert_int_equal(CALL(read, child, buf, 1), 1);
	assert_int_equal(CALL(epoll_wait, epfd, got, 2, 0), 1);
	event.events = EPOLLIN | EPOLLET;
	assert_int_equal(CALL(epoll_ctl, epfd, EPOLL_CTL_MOD, child, &event), 0);
	assert_int_equal(CALL(epoll_wait, epfd, got, 2, 0), 1);
	assert_int_equal(CALL(epoll_wait, epfd, got, 2, 0), 0);
	assert_int_equal(CALL(close, epfd), 0);
}

/* ---- calls that block, in a thread of their own ---- */

struct blocked {
	int fd;
	ssize_t result;
	int error;
	long long began_us, ended_us;
	atomic_bool done;
};

static void *blocking_accept_and_read(void *arg)
{
	struct blocked *b = arg;
	char buf[8];
	int child = CALL(accept, b->fd, NULL, NULL);
	b->result = child < 0 ? -1 : CALL(read, child, buf, sizeof(buf));
	b->ended_us = now_us();
	return NULL;
}

static void calls_block_until_a_packet_lets_them_go_on(void **state)
{
	(void)state;
	struct blocked b = {.fd = listener()};
	pthread_t thread;
	assert_int_equal(pthread_create(&thread, NULL, blocking_accept_and_read, &b), 0);
	handshake();
	CALL(usleep, 100000);
	say(ACK, "go");
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(b.result, 2);
}

static void *blocking_read(void *arg)
{
	struct blocked *b = arg;
	char buf[8];
	b->began_us = now_us();
	b->result = CALL(read, b->fd, buf, sizeof(buf));
	b->error = errno;
	b->ended_us = now_us();
	b->done = true;
	return NULL;
}

static void a_receive_time_out_follows_the_virtual_clock(void **state)
{
	(void)state;
	struct timeval tv = {.tv_sec = 7};
	int fd = listener();
	handshake();
	struct blocked b = {.fd = accepted(fd)};
	pthread_t thread;
	assert_int_equal(CALL(setsockopt, b.fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	assert_int_equal(pthread_create(&thread, NULL, blocking_read, &b), 0);
	while (!b.done)
		CALL(usleep, 10000); /* real time does not matter: the clock goes on until the other thread is through */
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(b.result, -1);
	assert_int_equal(b.error, EAGAIN);
	assert_true(b.ended_us - b.began_us >= 7000000);
}

static void *blocking_write(void *arg)
{
	struct blocked *b = arg;
	static char bytes[100000];
	b->result = CALL(write, b->fd, bytes, sizeof(bytes));
	return NULL;
}

static void a_write_larger_than_the_send_buffer_goes_on_as_acks_come(void **state)
{
	(void)state;
	int fd = listener(), size = 8000;
	handshake();
	struct blocked b = {.fd = accepted(fd)};
	pthread_t thread;
	struct packet p;
	size_t got = 0;
	assert_int_equal(CALL(setsockopt, b.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	assert_int_equal(pthread_create(&thread, NULL, blocking_write, &b), 0);
	while (got < 100000) {
		if (!hear(&p))
			continue; /* the thread has not begun */
		if (p.seq == rig.ack) {
			got += p.len;
			rig.ack += (uint32_t)p.len;
		}
		say(ACK, "");
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(b.result, 100000);
}

static void flags_configure_the_stack(void **state)
{
	(void)state;
	struct packet p;
	rig.calls.free(rig.calls.userdata);
	start("mtu=600,window=4000,rto_min_ms=1000");
	listener();
	say(SYN, "");
	p = expect(SYN | ACK, 0);
	assert_in_range(p.window, 2000, 4100);
	assert_true(p.payload - (rig.buf + 40) >= 4);
	assert_int_equal(rig.buf[40], 2); /* RFC 9293 3.7.1: the MSS option */
	assert_int_equal(get16(rig.buf + 42), 560);
}

static void what_cannot_be_acted_upon_is_refused(void **state)
{
	(void)state;
	int fd = CALL(socket, AF_INET, SOCK_STREAM, 0), off = 0, on = 1;
	assert_int_equal(CALL(setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
	assert_int_equal(CALL(setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)), -1);
	assert_int_equal(errno, ENOPROTOOPT);
	assert_int_equal(CALL(setsockopt, fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on)), -1);
	assert_int_equal(CALL(socket, AF_INET, SOCK_DGRAM, 0), -1);
	assert_int_equal(CALL(read, 5000, &on, 1), -1);
	assert_int_equal(errno, EBADF);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(every_call_of_the_interface_is_there),
		TEST(a_passive_open_carries_bytes_both_ways_and_closes),
		TEST(an_active_open_without_blocking_tells_by_poll_and_so_error),
		TEST(a_refused_open_is_econnrefused),
		TEST(waiting_for_a_packet_moves_the_clock_to_the_retransmission),
		TEST(the_clock_advances_whenever_it_is_asked),
		TEST(waiting_for_a_packet_that_never_comes_gives_up),
		TEST(tcp_info_tells_state_window_and_round_trip),
		TEST(unread_bytes_are_counted_peeked_at_and_reset_by_close),
		TEST(a_reset_is_econnreset),
		TEST(epoll_reports_levels_edges_and_time_outs),
		TEST(calls_block_until_a_packet_lets_them_go_on),
		TEST(a_receive_time_out_follows_the_virtual_clock),
		TEST(a_write_larger_than_the_send_buffer_goes_on_as_acks_come),
		TEST(flags_configure_the_stack),
		TEST(what_cannot_be_acted_upon_is_refused),
	};
	return cmocka_run_group_tests_name("packetdrill's library", tests, NULL, NULL);
}
