/*
 * option.c - socket options, flags and tcp_info.
 *
 * Owns: nothing. An option that the stack cannot act upon is refused with ENOPROTOOPT, never taken and forgotten.
 * Core: tests only.
 * Spec: socket(7), tcp(7), fcntl(2), ioctl(2) of Linux, whose scripts packetdrill runs.
 */
#include "tests/packetdrill/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

static int fail(int error)
{
	errno = error;
	return -1;
}

/* ---- tcp_info ---- */

/* Linux's numbers of the states of RFC 9293. */
static uint8_t state_number(const struct sock *s, const char *name)
{
	static const char *const names[] = {"",          "ESTABLISHED", "SYN-SENT",   "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2",
					    "TIME-WAIT", "CLOSED",      "CLOSE-WAIT", "LAST-ACK",     "LISTEN",     "CLOSING"};
	if (s->kind == SOCK_LISTENING)
		return 10;
	if (s->conn == NULL)
		return 7;
	for (uint8_t i = 1; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *a = names[i], *b = name;
		while (*a != '\0' && (*a == *b || (*a == '-' && *b == '_'))) {
			a++;
			b++;
		}
		if (*a == '\0' && *b == '\0')
			return i;
	}
	return 0;
}

static uint32_t segments(uint32_t bytes, uint32_t mss)
{
	return mss == 0 ? 0 : (bytes + mss - 1) / mss;
}

static void fill_tcp_info(const struct sock *s, struct tcp_info *out)
{
	struct tcps_conn_info i = s->last;
	*out = (struct tcp_info){0};
	if (s->conn != NULL)
		tcps_info(s->conn, &i);
	out->tcpi_state = state_number(s, i.state == NULL ? "" : i.state);
	out->tcpi_ca_state = i.recovery ? 3 : 0; /* recovery, open */
	out->tcpi_options = (uint8_t)((i.timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (i.sack ? TCPI_OPT_SACK : 0));
	out->tcpi_rto = i.rto_ms * 1000;
	out->tcpi_ato = (uint32_t)(s->d->cfg.delayed_ack_ns / 1000);
	out->tcpi_snd_mss = out->tcpi_advmss = out->tcpi_rcv_mss = i.mss;
	out->tcpi_unacked = segments(i.unacked_bytes, i.mss);
	out->tcpi_sacked = segments(i.sacked_bytes, i.mss);
	out->tcpi_lost = segments(i.lost_bytes, i.mss);
	out->tcpi_rtt = i.srtt_us;
	out->tcpi_rttvar = i.rttvar_us;
	out->tcpi_snd_ssthresh = i.ssthresh_bytes >= 0x7fffffff ? 0x7fffffff : segments(i.ssthresh_bytes, i.mss);
	out->tcpi_snd_cwnd = segments(i.cwnd_bytes, i.mss);
	out->tcpi_rcv_space = i.rcv_wnd_bytes;
	out->tcpi_total_retrans = (uint32_t)i.retransmits;
	out->tcpi_notsent_bytes = i.unsent_bytes;
	out->tcpi_min_rtt = i.min_rtt_us;
	out->tcpi_bytes_received = i.bytes_in;
	out->tcpi_bytes_sent = i.bytes_out;
	out->tcpi_pmtu = s->d->cfg.mtu;
}

/* ---- getsockopt, setsockopt ---- */

static int copy_out(const void *from, size_t size, void *value, socklen_t *len)
{
	if (value == NULL || len == NULL)
		return fail(EFAULT);
	size_t n = *len < size ? *len : size;
	memcpy(value, from, n);
	*len = (socklen_t)n;
	return 0;
}

static int get_timeout(uint64_t ns, void *value, socklen_t *len)
{
	struct timeval tv = {0};
	if (ns != UINT64_MAX) {
		tv.tv_sec = (time_t)(ns / 1000000000ull);
		tv.tv_usec = (suseconds_t)(ns / 1000 % 1000000);
	}
	return copy_out(&tv, sizeof(tv), value, len);
}

static int get_socket_option(struct sock *s, int name, void *value, socklen_t *len)
{
	int n;
	switch (name) {
	case SO_ERROR:
		n = s->error;
		s->error = 0;
		break;
	case SO_TYPE:
		n = SOCK_STREAM;
		break;
	case SO_REUSEADDR:
		n = s->reuse_address;
		break;
	case SO_ACCEPTCONN:
		n = s->kind == SOCK_LISTENING;
		break;
	case SO_SNDBUF:
		n = (int)s->send_buffer_bytes;
		break;
	case SO_RCVBUF:
		n = (int)s->recv_buffer_bytes;
		break;
	case SO_KEEPALIVE:
		n = s->d->cfg.keepalive_ns != 0;
		break;
	case SO_LINGER:
		return copy_out(&s->linger, sizeof(s->linger), value, len);
	case SO_RCVTIMEO:
		return get_timeout(s->recv_timeout_ns, value, len);
	case SO_SNDTIMEO:
		return get_timeout(s->send_timeout_ns, value, len);
	default:
		return fail(ENOPROTOOPT);
	}
	return copy_out(&n, sizeof(n), value, len);
}

static int get_tcp_option(const struct sock *s, int name, void *value, socklen_t *len)
{
	struct tcp_info info;
	int n;
	fill_tcp_info(s, &info);
	switch (name) {
	case TCP_INFO:
		return copy_out(&info, sizeof(info), value, len);
	case TCP_NODELAY:
		n = 1;
		break;
	case TCP_MAXSEG:
		n = (int)info.tcpi_snd_mss;
		break;
	case TCP_CONGESTION: {
		const char *cc = s->d->cfg.cc == TCPS_CC_NEWRENO ? "reno" : "cubic";
		return copy_out(cc, strlen(cc) + 1, value, len);
	}
	default:
		return fail(ENOPROTOOPT);
	}
	return copy_out(&n, sizeof(n), value, len);
}

static int drill_getsockopt(void *user, int fd, int level, int name, void *value, socklen_t *len)
{
	struct driver *d = user;
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	int result = -1;
	if (s != NULL && level == SOL_SOCKET)
		result = get_socket_option(s, name, value, len);
	else if (s != NULL && level == IPPROTO_TCP)
		result = get_tcp_option(s, name, value, len);
	else if (s != NULL)
		result = fail(ENOPROTOOPT);
	pthread_mutex_unlock(&d->mutex);
	return result;
}

static int set_timeout(uint64_t *ns, const void *value, socklen_t len)
{
	struct timeval tv;
	if (len < sizeof(tv))
		return fail(EINVAL);
	memcpy(&tv, value, sizeof(tv));
	if (tv.tv_sec < 0 || tv.tv_usec < 0 || tv.tv_usec > 999999)
		return fail(EDOM);
	*ns = tv.tv_sec == 0 && tv.tv_usec == 0 ? UINT64_MAX : (uint64_t)tv.tv_sec * 1000000000ull + (uint64_t)tv.tv_usec * 1000;
	return 0;
}

static int set_socket_option(struct sock *s, int name, const void *value, socklen_t len)
{
	int n = 0;
	if (name == SO_RCVTIMEO)
		return set_timeout(&s->recv_timeout_ns, value, len);
	if (name == SO_SNDTIMEO)
		return set_timeout(&s->send_timeout_ns, value, len);
	if (name == SO_LINGER) {
		if (len < sizeof(s->linger))
			return fail(EINVAL);
		memcpy(&s->linger, value, sizeof(s->linger));
		return 0;
	}
	if (len < sizeof(n))
		return fail(EINVAL);
	memcpy(&n, value, sizeof(n));
	switch (name) {
	case SO_REUSEADDR:
		s->reuse_address = n != 0;
		return 0;
	case SO_SNDBUF:
		s->send_buffer_bytes = n < 2304 ? 4608 : (uint32_t)n * 2; /* doubled, as Linux does */
		return 0;
	case SO_RCVBUF:
		s->recv_buffer_bytes = n < 1152 ? 2304 : (uint32_t)n * 2;
		if (s->conn != NULL)
			tcps_recv_limit(s->conn, s->recv_buffer_bytes);
		return 0;
	case SO_KEEPALIVE: /* the stack has one setting for all: --so_flags keepalive_ms= */
		return (n != 0) == (s->d->cfg.keepalive_ns != 0) ? 0 : fail(ENOPROTOOPT);
	default:
		return fail(ENOPROTOOPT);
	}
}

static int set_tcp_option(const struct sock *s, int name, const void *value, socklen_t len)
{
	int n = 0;
	if (name == TCP_CONGESTION) {
		const char *cc = s->d->cfg.cc == TCPS_CC_NEWRENO ? "reno" : "cubic";
		return strnlen(value, len) == strlen(cc) && memcmp(value, cc, strlen(cc)) == 0 ? 0 : fail(ENOENT);
	}
	if (len < sizeof(n))
		return fail(EINVAL);
	memcpy(&n, value, sizeof(n));
	if (name == TCP_NODELAY) /* the stack never holds a partial segment back */
		return n != 0 ? 0 : fail(ENOPROTOOPT);
	return fail(ENOPROTOOPT);
}

static int drill_setsockopt(void *user, int fd, int level, int name, const void *value, socklen_t len)
{
	struct driver *d = user;
	if (value == NULL)
		return fail(EFAULT);
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	int result = -1;
	if (s != NULL && level == SOL_SOCKET)
		result = set_socket_option(s, name, value, len);
	else if (s != NULL && level == IPPROTO_TCP)
		result = set_tcp_option(s, name, value, len);
	else if (s != NULL)
		result = fail(ENOPROTOOPT);
	pthread_mutex_unlock(&d->mutex);
	return result;
}

/* ---- fcntl, ioctl ---- */

static int drill_fcntl(void *user, int fd, int cmd, ...)
{
	struct driver *d = user;
	va_list ap;
	va_start(ap, cmd);
	long argument = va_arg(ap, long);
	va_end(ap);
	if (fd < FD_BASE)
		return fcntl(fd, cmd, argument);
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	int result = 0;
	if (s == NULL)
		result = -1;
	else if (cmd == F_GETFL)
		result = O_RDWR | (s->nonblocking ? O_NONBLOCK : 0);
	else if (cmd == F_SETFL)
		s->nonblocking = (argument & O_NONBLOCK) != 0;
	else if (cmd != F_GETFD && cmd != F_SETFD) /* nothing is ever executed, so FD_CLOEXEC tells nothing apart */
		result = fail(EINVAL);
	pthread_mutex_unlock(&d->mutex);
	return result;
}

static int drill_ioctl(void *user, int fd, unsigned long request, ...)
{
	struct driver *d = user;
	va_list ap;
	va_start(ap, request);
	int *argument = va_arg(ap, int *);
	va_end(ap);
	if (fd < FD_BASE)
		return ioctl(fd, request, argument);
	pthread_mutex_lock(&d->mutex);
	struct sock *s = sock_of(d, fd);
	int result = 0;
	if (s == NULL)
		result = -1;
	else if (argument == NULL)
		result = fail(EFAULT);
	else if (request == SIOCINQ) /* FIONREAD is the same number */
		*argument = (int)sock_unread(s);
	else if (request == SIOCOUTQ)
		*argument = (int)sock_unsent(s);
	else if (request == FIONBIO)
		s->nonblocking = *argument != 0;
	else
		result = fail(EINVAL);
	pthread_mutex_unlock(&d->mutex);
	return result;
}

void option_calls(struct packetdrill_interface *table)
{
	table->getsockopt = drill_getsockopt;
	table->setsockopt = drill_setsockopt;
	table->fcntl = drill_fcntl;
	table->ioctl = drill_ioctl;
}
