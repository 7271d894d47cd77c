/*
 * driver.c - the library's clock, its wire and its start.
 *
 * Owns: the stack's memory, the frames between stack and script, virtual time.
 * Core: tests only.
 * Spec: packetdrill's shared-object interface (interface.h).
 */
#include "tests/packetdrill/driver.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define US            1000ull
#define MS            1000000ull
#define START_NS      (1000000ull * 1000000000ull)
#define GIVE_UP_NS    (300ull * 1000000000ull) /* of virtual time without a packet: longer than any retransmission time-out */
#define STUCK_SECONDS 5                        /* of real time in which a call waits and nobody moves the clock */
#define ETH_LEN       14u

/* ---- the wire ---- */

/* The next moment at which a timer of the stack, or the time-out of a call that waits, has something to do. */
static uint64_t next_event_ns(const struct driver *d)
{
	uint64_t next_ns = tcps_next_deadline(d->t);
	return d->waiting > 0 && d->alarm_ns < next_ns ? d->alarm_ns : next_ns;
}

static uint8_t *tx_alloc(void *ctx, size_t len, void **handle)
{
	struct driver *d = ctx;
	struct frame *f = malloc(sizeof(*f) + len);
	if (f == NULL || len > FRAME_MAX) {
		free(f);
		return NULL;
	}
	*handle = f;
	d->being_written = f;
	return f->bytes;
}

static void answer_arp(struct driver *d, const uint8_t *request)
{
	uint8_t reply[60] = {0};
	if (request[21] != 1 || memcmp(request + 28, request + 38, 4) == 0)
		return; /* a reply, or an announcement */
	memcpy(reply, d->cfg.mac, 6);
	memcpy(reply + 6, d->peer_mac, 6);
	memcpy(reply + 12, request + 12, 8); /* types and sizes */
	reply[21] = 2;
	memcpy(reply + 22, d->peer_mac, 6);
	memcpy(reply + 28, request + 38, 4);
	memcpy(reply + 32, request + 22, 10);
	tcps_input(d->t, reply, sizeof(reply), 0, d->now_ns);
}

static void tx_send(void *ctx, void *handle, size_t len, const struct tcps_tx_meta *meta)
{
	struct driver *d = ctx;
	struct frame *f = handle;
	(void)meta; /* no offload is configured */
	d->being_written = NULL;
	f->len = len;
	f->at_ns = d->now_ns;
	f->next = NULL;
	*d->last = f;
	d->last = &f->next;
}

/* ARP is between the stack and us; a script sees IP packets alone. */
static void filter_frames(struct driver *d)
{
	struct frame **at = &d->first;
	while (*at != NULL) {
		struct frame *f = *at;
		bool is_arp = f->bytes[12] == 0x08 && f->bytes[13] == 0x06;
		if (!is_arp) {
			at = &f->next;
			continue;
		}
		*at = f->next;
		if (d->last == &f->next)
			d->last = at;
		answer_arp(d, f->bytes); /* may append */
		free(f);
	}
}

void driver_flush(struct driver *d)
{
	tcps_flush(d->t, d->now_ns);
	filter_frames(d);
	tcps_flush(d->t, d->now_ns);
}

static int netdev_send(void *user, const void *packet, size_t len)
{
	struct driver *d = user;
	if (len == 0 || len + ETH_LEN > FRAME_MAX) {
		errno = EMSGSIZE;
		return -1;
	}
	uint8_t *frame = malloc(ETH_LEN + len); /* of the exact size, so that a sanitizer sees a read beyond it */
	if (frame == NULL)
		return -1;
	bool ipv6 = *(const uint8_t *)packet >> 4 == 6;
	memcpy(frame, d->cfg.mac, 6);
	memcpy(frame + 6, d->peer_mac, 6);
	frame[12] = ipv6 ? 0x86 : 0x08;
	frame[13] = ipv6 ? 0xdd : 0x00;
	memcpy(frame + ETH_LEN, packet, len);
	pthread_mutex_lock(&d->mutex);
	tcps_input(d->t, frame, ETH_LEN + len, 0, d->now_ns);
	driver_flush(d);
	driver_settle(d);
	pthread_mutex_unlock(&d->mutex);
	free(frame);
	return 0;
}

/* Time passes until a packet comes: at most as long as anything the stack has armed, and never for ever. */
static void await_frame(struct driver *d)
{
	uint64_t limit_ns = d->now_ns + GIVE_UP_NS;
	while (d->first == NULL) {
		uint64_t next_ns = next_event_ns(d);
		if (next_ns > limit_ns)
			return;
		driver_advance(d, next_ns > d->now_ns ? next_ns : d->now_ns + US);
	}
}

static int netdev_receive(void *user, void *packet, size_t *len, long long *at_us)
{
	struct driver *d = user;
	pthread_mutex_lock(&d->mutex);
	await_frame(d);
	struct frame *f = d->first;
	if (f == NULL) {
		*len = 0;
		*at_us = (long long)(d->now_ns / US);
	} else {
		d->first = f->next;
		if (d->first == NULL)
			d->last = &d->first;
		size_t ip_len = f->len - ETH_LEN;
		*len = ip_len < *len ? ip_len : *len;
		memcpy(packet, f->bytes + ETH_LEN, *len);
		*at_us = (long long)(f->at_ns / US);
		free(f);
	}
	pthread_mutex_unlock(&d->mutex);
	return 0;
}

/* ---- the clock ---- */

void driver_advance(struct driver *d, uint64_t until_ns)
{
	do {
		uint64_t next_ns = next_event_ns(d);
		uint64_t to_ns = next_ns < until_ns ? next_ns : until_ns;
		if (to_ns > d->now_ns)
			d->now_ns = to_ns;
		tcps_tick(d->t, d->now_ns);
		driver_flush(d);
		driver_settle(d);
		if (tcps_next_deadline(d->t) <= d->now_ns && d->now_ns < until_ns)
			d->now_ns += US; /* a timer that is due and cannot run must not hold the clock */
	} while (d->now_ns < until_ns);
}

/* Whoever asks for the time gets a later one each time: packetdrill spins on it. */
static int drill_gettimeofday(void *user, struct timeval *tv, struct timezone *tz)
{
	struct driver *d = user;
	(void)tz;
	pthread_mutex_lock(&d->mutex);
	driver_advance(d, d->now_ns + US);
	tv->tv_sec = (time_t)(d->now_ns / 1000000000ull);
	tv->tv_usec = (suseconds_t)(d->now_ns / US % 1000000ull);
	pthread_mutex_unlock(&d->mutex);
	return 0;
}

static int drill_usleep(void *user, useconds_t us)
{
	struct driver *d = user;
	pthread_mutex_lock(&d->mutex);
	driver_advance(d, d->now_ns + us * US);
	pthread_mutex_unlock(&d->mutex);
	return 0;
}

void driver_settle(struct driver *d)
{
	if (d->waiting == 0)
		return;
	d->generation++;
	d->unseen = d->waiting;
	d->alarm_ns = UINT64_MAX; /* those that go on waiting name theirs again */
	pthread_cond_broadcast(&d->changed);
	/* A call that may go on keeps the mutex until it is through, so what it does is done before this returns. */
	while (d->unseen > 0)
		pthread_cond_wait(&d->settled, &d->mutex);
}

bool driver_wait(struct driver *d, uint64_t until_ns)
{
	if (d->now_ns >= until_ns) {
		errno = EAGAIN;
		return false;
	}
	struct timespec limit;
	clock_gettime(CLOCK_MONOTONIC, &limit);
	limit.tv_sec += STUCK_SECONDS;
	uint64_t generation = d->generation;
	int result = 0;
	if (until_ns < d->alarm_ns)
		d->alarm_ns = until_ns;
	d->waiting++;
	while (generation == d->generation && result == 0)
		result = pthread_cond_timedwait(&d->changed, &d->mutex, &limit);
	d->waiting--;
	if (generation == d->generation) {
		errno = EDEADLK;
		return false;
	}
	if (--d->unseen == 0)
		pthread_cond_broadcast(&d->settled);
	return true;
}

/* ---- start and end ---- */

static bool parse_address(const char *text, uint8_t out[4])
{
	return inet_pton(AF_INET, text, out) == 1;
}

static bool parse_number(const char *text, uint64_t most, uint64_t *out)
{
	char *end;
	*out = strtoull(text, &end, 10);
	return *text != '\0' && *end == '\0' && *out <= most;
}

/* One name=value of --so_flags. */
static bool parse_flag(struct tcps_config *cfg, const char *name, const char *value)
{
	uint64_t n = 0;
	if (strcmp(name, "local") == 0)
		return parse_address(value, cfg->ipv4);
	if (strcmp(name, "gateway") == 0)
		return parse_address(value, cfg->ipv4_gateway);
	if (strcmp(name, "cc") == 0) {
		cfg->cc = strcmp(value, "newreno") == 0 ? TCPS_CC_NEWRENO : TCPS_CC_CUBIC;
		return strcmp(value, "newreno") == 0 || strcmp(value, "cubic") == 0;
	}
	if (!parse_number(value, 1u << 30, &n))
		return false;
	if (strcmp(name, "prefix") == 0 && n <= 32)
		cfg->ipv4_prefix_len = (uint8_t)n;
	else if (strcmp(name, "mtu") == 0 && n >= 576 && n <= 9000)
		cfg->mtu = (uint16_t)n;
	else if (strcmp(name, "rto_min_ms") == 0)
		cfg->rto_min_ns = n * MS;
	else if (strcmp(name, "rto_max_ms") == 0)
		cfg->rto_max_ns = n * MS;
	else if (strcmp(name, "delayed_ack_ms") == 0)
		cfg->delayed_ack_ns = n * MS;
	else if (strcmp(name, "keepalive_ms") == 0)
		cfg->keepalive_ns = n * MS;
	else if (strcmp(name, "window") == 0)
		cfg->recv_window_bytes = (uint32_t)n;
	else if (strcmp(name, "retransmits") == 0)
		cfg->retransmits_max = (uint32_t)n;
	else if (strcmp(name, "sack") == 0)
		cfg->no_sack = n == 0;
	else
		return false;
	return true;
}

static void parse_flags(struct tcps_config *cfg, const char *flags)
{
	char *copy = strdup(flags != NULL ? flags : ""), *rest = copy;
	for (char *item = strsep(&rest, ","); item != NULL; item = strsep(&rest, ",")) {
		char *value = strchr(item, '=');
		if (*item == '\0')
			continue;
		if (value != NULL)
			*value++ = '\0';
		if (value == NULL || !parse_flag(cfg, item, value)) {
			fprintf(stderr, "libtickwire-packetdrill: --so_flags: '%s' is not understood\n", item);
			exit(64);
		}
	}
	free(copy);
}

static void default_config(struct tcps_config *cfg)
{
	*cfg = (struct tcps_config){
		.mac = {0x02, 0x54, 0x57, 0, 0, 2},
		.ipv4 = {198, 18, 0, 2},
		.ipv4_prefix_len = 24,
		.ipv4_gateway = {198, 18, 0, 1},
		.mtu = 1500,
		.conns_max = SOCKS_MAX,
		.half_open_max = 256,
		.time_wait_max = 256,
		.listeners_max = 16,
		.neighbours_max = 16,
		.blocks_max = 16384,
		.send_high_water_bytes = 1u << 20,
		.recv_window_bytes = 65536,
		.rto_min_ns = 200 * MS,
		.rto_max_ns = 120000 * MS,
		.msl_ns = 30000 * MS,
		.delayed_ack_ns = 40 * MS,
		.retransmits_max = 15,
		.secret = "packetdrill",
	};
}

static void driver_free(void *user)
{
	struct driver *d = user;
	for (unsigned i = 0; i < SOCKS_MAX; i++) {
		free(d->socks[i]);
		free(d->orphans[i]);
	}
	while (d->first != NULL) {
		struct frame *f = d->first;
		d->first = f->next;
		free(f);
	}
	free(d->being_written);
	free(d->mem);
	pthread_mutex_destroy(&d->mutex);
	pthread_cond_destroy(&d->changed);
	pthread_cond_destroy(&d->settled);
	free(d);
}

static void start_stack(struct driver *d)
{
	struct tcps_ops ops = sock_ops;
	ops.tx_alloc = tx_alloc;
	ops.tx_send = tx_send;
	size_t bytes = tcps_mem_bytes(&d->cfg);
	d->mem = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
	if (d->mem != NULL)
		memset(d->mem, 0, bytes);
	d->t = d->mem == NULL ? NULL : tcps_init(d->mem, bytes, &d->cfg, &ops, d, d->now_ns);
	if (d->t == NULL) {
		fprintf(stderr, "libtickwire-packetdrill: the stack refuses this configuration\n");
		exit(70);
	}
}

__attribute__((visibility("default"))) void packetdrill_interface_init(const char *flags, struct packetdrill_interface *table)
{
	struct driver *d = calloc(1, sizeof(*d));
	if (d == NULL)
		exit(71);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&d->mutex, NULL);
	pthread_cond_init(&d->changed, &monotonic);
	pthread_cond_init(&d->settled, NULL);
	pthread_condattr_destroy(&monotonic);
	d->last = &d->first;
	d->alarm_ns = UINT64_MAX;
	d->now_ns = START_NS;
	d->next_port = 32768;
	memcpy(d->peer_mac, (uint8_t[]){0x02, 0x54, 0x57, 0, 0, 1}, 6);
	default_config(&d->cfg);
	parse_flags(&d->cfg, flags);
	start_stack(d);
	*table = (struct packetdrill_interface){.userdata = d,
						.free = driver_free,
						.netdev_send = netdev_send,
						.netdev_receive = netdev_receive,
						.usleep = drill_usleep,
						.gettimeofday = drill_gettimeofday};
	socket_calls(table);
	transfer_calls(table);
	option_calls(table);
	event_calls(table);
}
