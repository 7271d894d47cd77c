/*
 * tickctl_client.c - one request and one answer over control's socket, with a deadline.
 *
 * Owns: the socket and the buffer of the answer.
 * Core: the process of tickctl.
 * Spec: control/ctl_proto.h.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "control/ctl_proto.h"
#include "control/tickctl.h"

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void complain(const struct tickctl_options *o, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(const struct tickctl_options *o, const char *fmt, ...)
{
	va_list ap;

	if (o->mute)
		return;
	fflush(stdout); /* what was printed before stands before it */
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
}

int tickctl_connect(struct tickctl_client *c, const struct tickctl_options *o)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	memset(c, 0, sizeof *c);
	c->fd = -1;
	if (strlen(o->socket) >= sizeof addr.sun_path) {
		complain(o, "Error: the socket's path is too long: %s\n", o->socket);
		return CTL_EXIT_USAGE;
	}
	strcpy(addr.sun_path, o->socket);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd >= 0 && connect(c->fd, (struct sockaddr *)&addr, sizeof addr) == 0)
		return 0;
	complain(o,
		 "Error: control does not answer on %s: %s. Is tickwire-control running, and may you open its socket? Another one "
		 "is "
		 "named with --socket or TICKWIRE_SOCKET.\n",
		 o->socket, strerror(errno));
	tickctl_close(c);
	return CTL_EXIT_UNAVAILABLE;
}

void tickctl_close(struct tickctl_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->buf);
	memset(c, 0, sizeof *c);
	c->fd = -1;
}

/* 1: ready, 0: time is up, -1: an error. */
static int wait_for(int fd, short events, double until_s)
{
	struct pollfd p = {.fd = fd, .events = events};

	for (;;) {
		double left_s = until_s - now_s();
		int n = poll(&p, 1, until_s <= 0 ? -1 : left_s <= 0 ? 0 : (int)(left_s * 1000) + 1);

		if (n >= 0 || errno != EINTR)
			return n;
	}
}

static int send_all(int fd, const char *text, size_t len, double until_s)
{
	while (len > 0) {
		int ready = wait_for(fd, POLLOUT, until_s);
		ssize_t n = ready == 1 ? send(fd, text, len, MSG_NOSIGNAL) : 0;

		if (ready == 0)
			return CTL_EXIT_TEMPFAIL;
		if (ready < 0 || n <= 0)
			return CTL_EXIT_UNAVAILABLE;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_line(struct tickctl_client *c, double until_s)
{
	c->len = 0;
	while (c->len == 0 || c->buf[c->len - 1] != '\n') {
		int ready = wait_for(c->fd, POLLIN, until_s);
		ssize_t n;

		if (ready == 0)
			return CTL_EXIT_TEMPFAIL;
		if (c->cap - c->len < 65536) {
			char *bigger = c->cap < CTL_PROTO_RESPONSE_MAX ? realloc(c->buf, 2 * c->cap + 131072) : NULL;

			if (bigger == NULL)
				return CTL_EXIT_SOFTWARE;
			c->buf = bigger;
			c->cap = 2 * c->cap + 131072;
		}
		n = ready == 1 ? read(c->fd, c->buf + c->len, c->cap - c->len) : -1;
		if (n <= 0)
			return CTL_EXIT_UNAVAILABLE;
		c->len += (size_t)n;
	}
	return 0;
}

static int unpack(struct tickctl_client *c, const struct tickctl_options *o, json_t **result)
{
	json_t *answer = json_loadb(c->buf, c->len, JSON_ALLOW_NUL, NULL);
	const char *sentence = json_string_value(json_object_get(answer, "error"));
	json_t *code = json_object_get(answer, "code");
	int rc;

	if (!json_is_integer(code)) {
		complain(o, "Error: control's answer makes no sense: are tickctl and control of one release?\n");
		json_decref(answer);
		return CTL_EXIT_SOFTWARE;
	}
	rc = (int)json_integer_value(code);
	if (rc != 0)
		complain(o, "Error: %s\n", sentence != NULL ? sentence : "control refused");
	else
		*result = json_incref(json_object_get(answer, "result"));
	json_decref(answer);
	return rc;
}

int tickctl_ask(struct tickctl_client *c, const struct tickctl_options *o, json_t *request, json_t **result)
{
	char *text = json_dumps(request, JSON_COMPACT);
	double until_s = o->timeout_s > 0 ? now_s() + o->timeout_s : 0;
	int rc = text == NULL ? CTL_EXIT_DATA : 0;

	*result = NULL;
	json_decref(request);
	if (rc == 0)
		rc = send_all(c->fd, text, strlen(text), until_s);
	if (rc == 0)
		rc = send_all(c->fd, "\n", 1, until_s);
	if (rc == 0)
		rc = read_line(c, until_s);
	free(text);
	if (rc == 0)
		return unpack(c, o, result);
	if (rc == CTL_EXIT_TEMPFAIL)
		complain(o, "Error: control did not answer within %g seconds; give it more with --timeout\n", o->timeout_s);
	else if (rc == CTL_EXIT_DATA)
		complain(o, "Error: an argument is no UTF-8 text\n");
	else
		complain(o, "Error: control closed the connection; its log says why\n");
	return rc;
}
