/*
 * tcp_app.c - simulated applications.
 *
 * Owns: struct app.
 * Core: tests only.
 * Spec: none.
 */
#include "tests/sim/tcp_app.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * A reference that was given to the stack; its bytes must stay until it comes back, and it must come back once, and once more for
 * every frame that held it.
 */
struct ref {
	uint64_t magic;
	uint32_t *out;
	uint32_t holders;
	uint8_t bytes[];
};

#define REF_MAGIC 0x7265666572656e63ull

uint8_t app_byte(unsigned id, uint64_t off)
{
	uint64_t x = (off >> 3) * 0x9e3779b97f4a7c15ull + id * 0xbf58476d1ce4e5b9ull;
	x ^= x >> 29;
	return (uint8_t)(x >> (off & 7) * 8);
}

static void fill(struct app *a, uint8_t *to, size_t len)
{
	for (size_t i = 0; i < len; i++)
		to[i] = app_byte(a->id, a->sent + i);
}

static bool send_inline(struct app *a, size_t len)
{
	uint8_t buf[32768];
	fill(a, buf, len);
	return tcps_send(a->conn, buf, len);
}

static bool send_reserved(struct app *a, size_t len)
{
	uint8_t *to = tcps_reserve(a->conn, len);
	if (to == NULL)
		return false;
	/* Sometimes more is reserved than committed. */
	fill(a, to, len);
	tcps_commit(a->conn, len);
	return true;
}

static bool send_reference(struct app *a, size_t len)
{
	struct ref *r = malloc(sizeof(*r) + len);
	if (r == NULL)
		abort();
	r->magic = REF_MAGIC;
	r->out = a->refs_out;
	r->holders = 1;
	fill(a, r->bytes, len);
	if (!tcps_send_ref(a->conn, r->bytes, len, r)) {
		free(r);
		return false;
	}
	++*a->refs_out;
	return true;
}

static void on_release(void *ctx, void *owner)
{
	(void)ctx;
	struct ref *r = owner;
	if (r->magic != REF_MAGIC) {
		fprintf(stderr, "Bail out! a reference was released twice\n");
		abort();
	}
	if (--r->holders != 0)
		return;
	r->magic = 0;
	--*r->out;
	free(r);
}

static void on_hold(void *ctx, void *owner)
{
	(void)ctx;
	struct ref *r = owner;
	r->holders++;
}

/* One message of any kind; false: the stack had no room now. */
static bool send_some(struct app *a, uint64_t limit)
{
	uint64_t most = limit < 20000 ? limit : 20000;
	if (a->style == APP_SMALL && most > 300)
		most = 300;
	size_t len = (size_t)net_spread(a->net, 1, most);
	bool ok;
	switch (net_below(a->net, 3)) {
	case 0:
		ok = send_inline(a, len);
		break;
	case 1:
		len = len < TCPS_RESERVE_MAX ? len : TCPS_RESERVE_MAX;
		ok = send_reserved(a, len);
		break;
	default:
		ok = send_reference(a, len);
		break;
	}
	if (ok)
		a->sent += len;
	return ok;
}

static uint64_t send_limit(const struct app *a)
{
	uint64_t limit = a->send_total;
	if (a->style == APP_PINGPONG) {
		uint64_t turn = a->received + (a->server ? 0 : a->chunk);
		if (a->peer->received + a->peer->send_total == 0 || a->eof)
			turn = limit; /* nobody to wait for */
		limit = turn < limit ? turn : limit;
	}
	return limit;
}

static void act_send(struct app *a, uint64_t now_ns)
{
	if (a->shut || now_ns < a->next_act_ns)
		return;
	a->next_act_ns = 0;
	uint64_t limit = send_limit(a);
	while (a->sent < limit && tcps_writable(a->conn)) {
		if (!send_some(a, limit - a->sent)) {
			a->next_act_ns = now_ns + 5000000; /* no blocks: later */
			break;
		}
		if (a->style == APP_SMALL) {
			a->next_act_ns = now_ns + net_spread(a->net, 1, 20000000);
			break;
		}
	}
	if (a->sent == a->send_total && (a->eof || !a->shut_after_eof)) {
		a->shut = true;
		a->next_act_ns = 0;
		tcps_shutdown(a->conn);
	}
}

uint64_t app_act(struct app *a, uint64_t now_ns)
{
	if (!a->open || a->closed)
		return NET_NEVER;
	if (a->abort_at_ns != 0 && now_ns >= a->abort_at_ns && !a->abort_in_callback) {
		a->abort_wanted = true;
		tcps_abort(a->conn);
		return NET_NEVER;
	}
	if (a->resume_at_ns != 0 && now_ns >= a->resume_at_ns) {
		a->resume_at_ns = 0;
		tcps_resume(a->conn);
		if (a->closed)
			return NET_NEVER;
	}
	act_send(a, now_ns);
	uint64_t next = NET_NEVER;
	if (a->next_act_ns != 0)
		next = a->next_act_ns;
	if (a->resume_at_ns != 0 && a->resume_at_ns < next)
		next = a->resume_at_ns;
	if (a->abort_at_ns != 0 && !a->abort_in_callback && a->abort_at_ns < next)
		next = a->abort_at_ns;
	return next;
}

bool app_connect(struct app *a, uint16_t local_port, uint16_t port, uint64_t now_ns)
{
	uint8_t host = (uint8_t)(!a->host->side + 1);
	struct tcps_endpoint peer = {.addr = {.family = 4, .bytes = {198, 18, 0, host}}, .port = port};
	if (a->family == APP_IPV6)
		peer.addr = (struct tcps_addr){.family = 6, .bytes = {0x20, 1, 0, 2, [15] = host}};
	else if (a->family == APP_LINK_LOCAL)
		peer.addr = (struct tcps_addr){.family = 6, .bytes = {0xfe, 0x80, [11] = 0xff, 0xfe, [15] = host}};
	a->conn = tcps_connect(a->host->t, &peer, local_port, a, now_ns);
	return a->conn != NULL;
}

static void *on_accept(void *ctx, struct tcps_conn *conn, const struct tcps_endpoint *peer, uint16_t local_port)
{
	(void)local_port;
	struct app *a = app_for(ctx, peer->port);
	if (a == NULL)
		return NULL;
	if (a->accepted)
		a->broken = "one connection was accepted twice";
	a->conn = conn;
	a->open = true;
	a->accepted = true;
	return a;
}

static void on_connected(void *user)
{
	struct app *a = user;
	if (a->open)
		a->broken = "on_connected() came twice";
	a->open = true;
	a->accepted = true;
}

static size_t on_data(void *user, const uint8_t *data, size_t len)
{
	struct app *a = user;
	uint64_t now_ns = a->host->now_ns;
	if (a->closed || a->eof || a->resume_at_ns != 0)
		a->broken = "on_data() came after the end, or before tcps_resume()";
	if (a->abort_in_callback && a->abort_at_ns != 0 && now_ns >= a->abort_at_ns) {
		a->abort_wanted = true;
		tcps_abort(a->conn);
		return 0;
	}
	size_t take = len;
	if (net_chance(a->net, a->stall_chance)) {
		take = (size_t)net_below(a->net, len);
		a->resume_at_ns = now_ns + net_spread(a->net, 1, a->stall_max_ns);
	}
	for (size_t i = 0; i < take; i++) {
		if (data[i] != app_byte(a->peer->id, a->received + i)) {
			a->broken = "a byte arrived that is not the one sent at its place";
			break;
		}
	}
	a->received += take;
	if (a->received > a->peer->sent)
		a->broken = "more arrived than was sent";
	if (net_chance(a->net, 1000))
		act_send(a, now_ns); /* answers from inside the callback, as a broker does */
	return take;
}

static void on_eof(void *user)
{
	struct app *a = user;
	if (a->eof || a->closed)
		a->broken = "on_eof() came twice";
	if (a->received != a->peer->sent || !a->peer->shut)
		a->broken = "the end of the stream came before its last byte";
	a->eof = true;
	if (net_chance(a->net, 5000))
		act_send(a, a->host->now_ns);
}

static void on_writable(void *user)
{
	struct app *a = user;
	if (a->closed)
		a->broken = "on_writable() came after the end";
}

static void on_closed(void *user, enum tcps_reason reason)
{
	struct app *a = user;
	if (a->closed)
		a->broken = "on_closed() came twice";
	a->closed = true;
	a->reason = reason;
}

const struct tcps_ops app_ops = {
	.on_accept = on_accept,
	.on_connected = on_connected,
	.on_data = on_data,
	.on_eof = on_eof,
	.on_writable = on_writable,
	.on_closed = on_closed,
	.release = on_release,
	.hold = on_hold,
};
