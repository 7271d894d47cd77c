/*
 * lwip_host.c - lwIP on the simulated network.
 *
 * Owns: lwIP's interface, and the functions that lwIP takes its time and its chance from: the library calls sys_now(), rand()
 *       and tcp_next_iss() through its procedure table, so those defined here stand in front of its own and libc's.
 * Core: tests only.
 * Spec: none.
 */
#include "tests/sim/lwip_host.h"

#include <lwip/init.h>
#include <lwip/netif.h>
#include <lwip/priv/tcp_priv.h>
#include <lwip/tcp.h>
#include <lwip/timeouts.h>
#include <netif/ethernet.h>
#include <lwip/etharp.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS           1000000ull
#define RETRY_NS     (20 * MS)
#define WRITE_MAX    8192u
#define REFUSALS_MAX 3u
#define HEADERS_MAX  128u /* lwIP wants them in one piece */

static struct {
	struct netif netif;
	struct net *net;
	unsigned side;
	uint64_t now_ns;
} host;

/* ---- what lwIP asks its system for ---- */

u32_t sys_now(void)
{
	return (u32_t)(host.now_ns / MS);
}

int rand(void)
{
	return (int)(net_random(host.net) & 0x7fffffff);
}

/* As lwIP's own hook would: anywhere, and often just below the wrap. */
u32_t tcp_next_iss(struct tcp_pcb *pcb)
{
	(void)pcb;
	u32_t below = (u32_t)net_spread(host.net, 0, 200000);
	return net_chance(host.net, 3000) ? 0u - below : (u32_t)net_random(host.net);
}

/* ---- the interface ---- */

static err_t link_output(struct netif *netif, struct pbuf *p)
{
	(void)netif;
	uint8_t frame[NET_FRAME_MAX];
	u16_t len = pbuf_copy_partial(p, frame, sizeof(frame), 0);
	net_send(host.net, host.side, frame, len, host.now_ns);
	return ERR_OK;
}

static err_t no_ipv6(struct netif *netif, struct pbuf *p, const ip6_addr_t *to)
{
	(void)netif;
	(void)p;
	(void)to;
	return ERR_RTE;
}

static uint16_t link_mtu;

static err_t link_init(struct netif *netif)
{
	netif->name[0] = 's';
	netif->name[1] = 'm';
	netif->hwaddr_len = 6;
	memset(netif->hwaddr, 0, 6);
	netif->hwaddr[0] = 2;
	netif->hwaddr[5] = (u8_t)(host.side + 1);
	netif->mtu = link_mtu;
	netif->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_LINK_UP;
	netif->output = etharp_output;
	netif->output_ip6 = no_ipv6;
	netif->linkoutput = link_output;
	return ERR_OK;
}

static void address_of(unsigned side, ip4_addr_t *addr)
{
	IP4_ADDR(addr, 198, 18, 0, (u8_t)(side + 1));
}

void lwip_host_start(struct net *net, unsigned side, uint16_t mtu, uint64_t now_ns)
{
	ip4_addr_t addr, mask, none;
	host.net = net;
	host.side = side;
	host.now_ns = now_ns;
	link_mtu = mtu;
	lwip_init();
	address_of(side, &addr);
	IP4_ADDR(&mask, 255, 255, 255, 0);
	ip4_addr_set_zero(&none);
	if (netif_add(&host.netif, &addr, &mask, &none, NULL, link_init, ethernet_input) == NULL)
		abort();
	netif_set_default(&host.netif);
	netif_set_up(&host.netif);
}

/* Debian's library hands out PBUF_POOL buffers shorter than it says, so frames come in the other kind, and in two pieces at times.
 */
static struct pbuf *frame_pbuf(const uint8_t *frame, size_t len)
{
	u16_t first = (u16_t)len;
	if (len > HEADERS_MAX && net_chance(host.net, 3000))
		first = (u16_t)(HEADERS_MAX + net_below(host.net, len - HEADERS_MAX));
	struct pbuf *p = pbuf_alloc(PBUF_RAW, first, PBUF_RAM);
	if (p != NULL && first < len) {
		struct pbuf *rest = pbuf_alloc(PBUF_RAW, (u16_t)(len - first), PBUF_RAM);
		if (rest == NULL)
			abort();
		pbuf_cat(p, rest);
	}
	if (p == NULL || pbuf_take(p, frame, (u16_t)len) != ERR_OK)
		abort();
	return p;
}

void lwip_host_input(const uint8_t *frame, size_t len, uint64_t now_ns)
{
	host.now_ns = now_ns;
	struct pbuf *p = frame_pbuf(frame, len);
	if (host.netif.input(p, &host.netif) != ERR_OK)
		pbuf_free(p);
}

void lwip_host_tick(uint64_t now_ns)
{
	host.now_ns = now_ns;
	sys_check_timeouts();
}

uint64_t lwip_host_next_ns(void)
{
	u32_t left = sys_timeouts_sleeptime();
	if (left == SYS_TIMEOUTS_SLEEPTIME_INFINITE)
		return NET_NEVER;
	return (host.now_ns / MS + left) * MS;
}

bool lwip_host_idle(void)
{
	return tcp_active_pcbs == NULL && tcp_tw_pcbs == NULL;
}

/* ---- reading ---- */

static void forget(struct lwip_end *e)
{
	if (e->pcb != NULL) {
		tcp_arg(e->pcb, NULL);
		tcp_recv(e->pcb, NULL);
		tcp_err(e->pcb, NULL);
	}
	e->pcb = NULL;
	if (e->held != NULL)
		pbuf_free(e->held);
	e->held = NULL;
}

static void closed(struct lwip_end *e, enum tcps_reason reason)
{
	forget(e);
	e->app.closed = true;
	e->app.reason = reason;
}

static void reached_eof(struct lwip_end *e)
{
	struct app *a = &e->app;
	if (a->eof)
		a->broken = "lwIP reported the end twice";
	if (a->received != a->peer->sent || !a->peer->shut)
		a->broken = "the end of the stream came to lwIP before its last byte";
	a->eof = true;
	/* Our FIN went first, so lwIP says no more: it waits out TIME_WAIT by itself. */
	if (a->shut)
		closed(e, TCPS_CLOSED_NORMALLY);
}

static void compare(struct app *a, const struct pbuf *p)
{
	for (; p != NULL; p = p->next) {
		const uint8_t *bytes = p->payload;
		for (u16_t i = 0; i < p->len; i++) {
			if (bytes[i] != app_byte(a->peer->id, a->received + i)) {
				a->broken = "a byte arrived at lwIP that is not the one sent at its place";
				return;
			}
		}
		a->received += p->len;
	}
	if (a->received > a->peer->sent)
		a->broken = "more arrived at lwIP than was sent";
}

static void take(struct lwip_end *e, struct pbuf *p)
{
	u16_t len = p->tot_len;
	compare(&e->app, p);
	pbuf_free(p);
	if (e->pcb != NULL)
		tcp_recved(e->pcb, len);
}

static void hold(struct lwip_end *e, struct pbuf *p)
{
	if (e->held == NULL)
		e->held = p;
	else
		pbuf_cat(e->held, p);
}

static void abort_now(struct lwip_end *e)
{
	struct tcp_pcb *pcb = e->pcb;
	e->app.abort_wanted = true;
	forget(e);
	tcp_abort(pcb);
	e->app.closed = true;
	e->app.reason = TCPS_CLOSED_ABORTED;
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct lwip_end *e = arg;
	struct app *a = &e->app;
	(void)pcb;
	if (err != ERR_OK)
		a->broken = "lwIP handed over bytes with an error";
	if (p == NULL) {
		if (e->held != NULL)
			e->eof_waits = true;
		else
			reached_eof(e);
		return ERR_OK;
	}
	if (a->abort_in_callback && a->abort_at_ns != 0 && host.now_ns >= a->abort_at_ns) {
		pbuf_free(p);
		abort_now(e);
		return ERR_ABRT;
	}
	bool stalled = host.now_ns < a->resume_at_ns;
	if (!stalled && net_chance(a->net, a->stall_chance)) {
		a->resume_at_ns = host.now_ns + net_spread(a->net, 1, a->stall_max_ns);
		e->refusals = 0;
		stalled = true;
	}
	/* Not once our FIN is sent: on its way into TIME_WAIT lwIP forgets what it keeps, acknowledged as it is. */
	if (stalled && e->refuses && !a->shut && e->refusals++ < REFUSALS_MAX)
		return ERR_MEM; /* lwIP keeps it, and asks again on its fast timer */
	if (stalled || e->held != NULL)
		hold(e, p);
	else
		take(e, p);
	return ERR_OK;
}

static void resume(struct lwip_end *e)
{
	e->app.resume_at_ns = 0;
	struct pbuf *p = e->held;
	e->held = NULL;
	if (p != NULL)
		take(e, p);
	if (e->eof_waits) {
		e->eof_waits = false;
		reached_eof(e);
	}
}

/* ---- opening and closing ---- */

static void on_err(void *arg, err_t err)
{
	struct lwip_end *e = arg;
	e->pcb = NULL; /* gone already */
	/* Bytes that the application has not looked at are its own, whatever became of the connection. */
	if (err == ERR_CLSD && (e->held != NULL || e->eof_waits))
		resume(e);
	enum tcps_reason reason = err == ERR_CLSD ? TCPS_CLOSED_NORMALLY : err == ERR_RST ? TCPS_CLOSED_RESET : TCPS_CLOSED_TIMEOUT;
	closed(e, reason);
}

static void attach(struct lwip_end *e, struct tcp_pcb *pcb)
{
	e->pcb = pcb;
	tcp_arg(pcb, e);
	tcp_recv(pcb, on_recv);
	tcp_err(pcb, on_err);
	ip_set_option(pcb, SOF_KEEPALIVE);
	pcb->keep_idle = 60000;
	if (!e->nagle)
		tcp_nagle_disable(pcb);
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	(void)arg;
	if (err != ERR_OK || pcb == NULL)
		return ERR_VAL;
	struct lwip_end *e = lwip_end_for(pcb->remote_port);
	if (e == NULL) {
		tcp_abort(pcb);
		return ERR_ABRT;
	}
	if (e->app.accepted)
		e->app.broken = "lwIP accepted one connection twice";
	e->app.accepted = e->app.open = true;
	attach(e, pcb);
	return ERR_OK;
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct lwip_end *e = arg;
	(void)pcb;
	(void)err;
	e->app.accepted = e->app.open = true;
	return ERR_OK;
}

void lwip_host_listen(uint16_t port)
{
	struct tcp_pcb *pcb = tcp_new();
	if (pcb == NULL || tcp_bind(pcb, IP_ANY_TYPE, port) != ERR_OK)
		abort();
	pcb = tcp_listen(pcb);
	if (pcb == NULL)
		abort();
	tcp_accept(pcb, on_accept);
}

bool lwip_connect(struct lwip_end *e, uint16_t local_port, uint16_t port)
{
	struct tcp_pcb *pcb = tcp_new();
	ip_addr_t to = IPADDR4_INIT(0);
	if (pcb == NULL || tcp_bind(pcb, IP_ANY_TYPE, local_port) != ERR_OK)
		return false;
	attach(e, pcb);
	address_of(!host.side, ip_2_ip4(&to));
	return tcp_connect(pcb, &to, port, on_connected) == ERR_OK;
}

/* ---- sending ---- */

static uint64_t send_limit(const struct app *a)
{
	if (a->style != APP_PINGPONG || a->eof || a->peer->received + a->peer->send_total == 0)
		return a->send_total;
	uint64_t turn = a->received + (a->server ? 0 : a->chunk);
	return turn < a->send_total ? turn : a->send_total;
}

/* False: no room in lwIP's queue now. */
static bool write_some(struct lwip_end *e, uint64_t limit)
{
	struct app *a = &e->app;
	uint8_t buf[WRITE_MAX];
	uint64_t most = limit < WRITE_MAX ? limit : WRITE_MAX, room = tcp_sndbuf(e->pcb);
	if (a->style == APP_SMALL && most > 300)
		most = 300;
	most = room < most ? room : most;
	if (most == 0)
		return false;
	u16_t len = (u16_t)net_spread(a->net, 1, most);
	for (u16_t i = 0; i < len; i++)
		buf[i] = app_byte(a->id, a->sent + i);
	u8_t flags = TCP_WRITE_FLAG_COPY | (net_chance(a->net, 2000) ? TCP_WRITE_FLAG_MORE : 0);
	if (tcp_write(e->pcb, buf, len, flags) != ERR_OK)
		return false;
	a->sent += len;
	return true;
}

static void act_send(struct lwip_end *e, uint64_t now_ns)
{
	struct app *a = &e->app;
	if (a->shut || now_ns < a->next_act_ns)
		return;
	a->next_act_ns = 0;
	uint64_t limit = send_limit(a);
	while (a->sent < limit) {
		if (!write_some(e, limit - a->sent)) {
			a->next_act_ns = now_ns + RETRY_NS;
			break;
		}
		if (a->style == APP_SMALL) {
			a->next_act_ns = now_ns + net_spread(a->net, 1, 20 * MS);
			break;
		}
	}
	tcp_output(e->pcb);
	if (a->sent < a->send_total || (!a->eof && a->shut_after_eof))
		return;
	if (e->pcb->refused_data != NULL) {
		a->next_act_ns = now_ns + RETRY_NS;
		return;
	}
	/* Where the other end's FIN was there before, lwIP reports ERR_CLSD once ours is acknowledged. */
	if (tcp_shutdown(e->pcb, 0, 1) != ERR_OK) {
		a->next_act_ns = now_ns + RETRY_NS; /* no room for the FIN */
		return;
	}
	a->shut = true;
	a->next_act_ns = 0;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return b != 0 && b < a ? b : a;
}

uint64_t lwip_act(struct lwip_end *e, uint64_t now_ns)
{
	struct app *a = &e->app;
	host.now_ns = now_ns;
	if (!a->open || a->closed)
		return NET_NEVER;
	if (a->abort_at_ns != 0 && now_ns >= a->abort_at_ns && !a->abort_in_callback) {
		abort_now(e);
		return NET_NEVER;
	}
	if (a->resume_at_ns != 0 && now_ns >= a->resume_at_ns)
		resume(e);
	if (!a->closed && a->resume_at_ns == 0 && e->pcb->refused_data != NULL)
		tcp_process_refused_data(e->pcb);
	if (a->closed)
		return NET_NEVER;
	act_send(e, now_ns);
	if (a->closed)
		return NET_NEVER;
	uint64_t next = sooner(NET_NEVER, a->next_act_ns);
	next = sooner(next, a->resume_at_ns);
	return a->abort_in_callback ? next : sooner(next, a->abort_at_ns);
}

void lwip_print(const struct lwip_end *e)
{
	const struct tcp_pcb *p = e->pcb;
	if (p == NULL) {
		printf("#           no connection in lwIP\n");
		return;
	}
	printf("#           lwIP: %s, refused %s, held %s, window in %u out %u, queue %u, rto %d, retransmissions %u, persist %u\n",
	       tcp_debug_state_str(p->state), p->refused_data != NULL ? "some" : "none", e->held != NULL ? "some" : "none",
	       (unsigned)p->rcv_wnd, (unsigned)p->snd_wnd, (unsigned)p->snd_queuelen, p->rto, p->nrtx, p->persist_backoff);
}
