/* The publisher's half: renders ticks as the schedule makes them due, sends them, accounts for lateness and confirms.
 * Runs on the publishing thread; the subscribers' half reads nothing of it but two atomic counters.
 * Specification: AMQP 0-9-1, basic.publish and section 4.2.6; RabbitMQ's publisher confirms. */
#include "tools/tickbench/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define STREAM_MIN_BYTES ((size_t)1024 * 1024)
#define FILL_MAX_BYTES   ((size_t)64 * 1024) /* of one step: receiving must not starve behind a backlog */
#define TEMPLATE_ROOM    ((size_t)640)
#define FLAG_HEADERS     0x2000

static void put_template(struct tb_out *o, const struct tb_load *load, const char *exchange, uint32_t symbol)
{
	char key[64], name[32];

	tb_symbol_key(key, sizeof(key), symbol);
	tb_method_begin(o, 1, TB_BASIC_PUBLISH);
	tb_put16(o, 0);
	tb_put_shortstr(o, exchange);
	tb_put_shortstr(o, key);
	tb_put8(o, 0);
	tb_frame_finish(o);
	tb_frame_begin(o, TB_FRAME_HEADER, 1);
	tb_put16(o, 60);
	tb_put16(o, 0);
	tb_put64(o, load->size_bytes);
	if (load->type == TB_TYPE_HEADERS) {
		tb_put16(o, FLAG_HEADERS);
		size_t table = tb_put_block_begin(o);
		snprintf(name, sizeof(name), "S%05u", symbol);
		tb_put_field_text(o, "kind", "trade");
		tb_put_field_text(o, "symbol", name);
		tb_put_field_text(o, "venue", "XTKW");
		tb_put_block_end(o, table);
	} else {
		tb_put16(o, 0);
	}
	tb_frame_finish(o);
}

static void put_body(struct tb_out *o, uint32_t size_bytes, uint32_t frame_max)
{
	uint32_t left = size_bytes, chunk_max = frame_max - TB_FRAME_OVERHEAD;

	while (left) {
		uint32_t chunk = left < chunk_max ? left : chunk_max;
		tb_frame_begin(o, TB_FRAME_BODY, 1);
		for (uint32_t i = 0; i < chunk; i++)
			tb_put8(o, (uint8_t)('0' + (size_bytes - left + i) % 64));
		tb_frame_finish(o);
		left -= chunk;
	}
}

bool tb_pub_init(struct tb_pub *p, const struct tb_load *load, const char *exchange, uint32_t frame_max)
{
	size_t body_frames = load->size_bytes / (frame_max - TB_FRAME_OVERHEAD) + 1;

	p->symbols = load->symbols;
	if (!tb_out_init(&p->templates, TEMPLATE_ROOM * load->symbols) ||
	    !tb_out_init(&p->body, load->size_bytes + body_frames * TB_FRAME_OVERHEAD))
		return false;
	for (uint32_t i = 0; i < load->symbols; i++)
		put_template(&p->templates, load, exchange, i);
	put_body(&p->body, load->size_bytes, frame_max);
	if (p->templates.overflow || p->body.overflow)
		return false;
	p->template_bytes = p->templates.tail / load->symbols;
	p->tick_bytes = p->template_bytes + p->body.tail;
	return tb_out_init(&p->stream, p->tick_bytes * 4 > STREAM_MIN_BYTES ? p->tick_bytes * 4 : STREAM_MIN_BYTES);
}

void tb_pub_fini(struct tb_pub *p)
{
	tb_out_fini(&p->templates);
	tb_out_fini(&p->body);
	tb_out_fini(&p->stream);
}

static void render(struct tb_pub *p, uint64_t seq)
{
	const uint8_t *template = p->templates.bytes + seq % p->symbols * p->template_bytes;

	tb_put_bytes(&p->stream, template, p->template_bytes);
	uint8_t *payload = p->stream.bytes + p->stream.tail + 7;
	tb_put_bytes(&p->stream, p->body.bytes, p->body.tail);
	tb_payload_write(payload, p->run, seq, tb_sched_intended(&p->sched, seq));
}

uint32_t tb_pub_fill(struct tb_pub *p, uint64_t now_ns)
{
	uint64_t seq = atomic_load_explicit(&p->rendered, memory_order_relaxed), from = seq;
	size_t filled = 0;

	while (filled < FILL_MAX_BYTES && tb_sched_due(&p->sched, seq, now_ns)) {
		if (p->stream.cap - p->stream.tail < p->tick_bytes) {
			tb_out_compact(&p->stream);
			if (p->stream.cap - p->stream.tail < p->tick_bytes)
				break; /* the broker does not keep up: the tick stays due and keeps its intended time */
		}
		if (!p->blocked && seq >= p->sched.warmup)
			tb_hist_record(p->client_late, now_ns - tb_sched_intended(&p->sched, seq));
		render(p, seq++);
		filled += p->tick_bytes;
	}
	atomic_store_explicit(&p->rendered, seq, memory_order_release);
	return (uint32_t)(seq - from);
}

void tb_pub_account(struct tb_pub *p, size_t bytes, uint64_t call_ns)
{
	uint64_t seq = atomic_load_explicit(&p->sent, memory_order_relaxed);

	p->stream_sent_bytes += bytes;
	p->last_sent_ns = call_ns;
	while ((seq + 1) * p->tick_bytes <= p->stream_sent_bytes) {
		if (seq >= p->sched.warmup)
			tb_hist_record(p->lateness, call_ns - tb_sched_intended(&p->sched, seq));
		seq++;
	}
	atomic_store_explicit(&p->sent, seq, memory_order_release);
}

int tb_pub_step(struct tb_pub *p, uint64_t now_ns, bool stopping)
{
	struct tb_conn *c = &p->conn;

	if (tb_pub_at_border(p)) {
		if (c->out.head < c->out.tail && !tb_conn_flush(c, now_ns))
			return -1;
		p->blocked |= c->out.head < c->out.tail || c->flow_stopped;
		if (c->out.head < c->out.tail || c->flow_stopped || stopping)
			return 0;
	}
	if (!stopping)
		tb_pub_fill(p, now_ns);
	size_t length = p->stream.tail - p->stream.head;
	if (stopping) /* only the tick that was begun */
		length = p->tick_bytes - p->stream_sent_bytes % p->tick_bytes;
	if (length == 0) {
		p->blocked = false;
		return 0;
	}
	long n = c->via->send(c, p->stream.bytes + p->stream.head, length);
	if (n <= 0) {
		p->blocked = true;
		if (n == 0)
			return 0;
		tb_conn_fail(c, TB_EXIT_UNAVAILABLE, "lost the publisher's connection while sending: %s", strerror(errno));
		return -1;
	}
	p->blocked = (size_t)n < length;
	p->stream.head += (size_t)n;
	if (p->stream.head == p->stream.tail)
		p->stream.head = p->stream.tail = 0;
	c->last_tx_ns = now_ns;
	tb_pub_account(p, (size_t)n, now_ns);
	return 1;
}

static void confirmed(struct tb_pub *p, uint64_t seq, uint64_t now_ns)
{
	enum tb_arrival how = tb_track_arrival(&p->confirms, seq, atomic_load_explicit(&p->rendered, memory_order_relaxed));

	if ((how == TB_ARRIVAL_NEW || how == TB_ARRIVAL_REORDERED) && seq >= p->sched.warmup)
		tb_hist_record(p->confirm_ns, now_ns - tb_sched_intended(&p->sched, seq));
}

static void on_confirm(struct tb_pub *p, const struct tb_frame *f, uint64_t now_ns, bool nack)
{
	struct tb_args a = tb_args_of(f);
	uint64_t tag = tb_args64(&a), rendered = atomic_load_explicit(&p->rendered, memory_order_relaxed);
	bool multiple = tb_args8(&a) & 1;

	if (a.bad || tag > rendered) {
		tb_conn_fail(&p->conn, TB_EXIT_PROTOCOL, "the broker confirmed tick %llu of %llu sent", (unsigned long long)tag,
			     (unsigned long long)rendered);
		return;
	}
	if (tag == 0)
		tag = rendered;
	for (;;) {
		uint64_t lowest = p->confirms.gap_count ? p->confirms.gaps[0].from : p->confirms.next_seq;
		uint64_t seq = multiple ? lowest : tag - 1;
		if (seq >= tag)
			break;
		p->nacked_count += nack;
		confirmed(p, seq, now_ns);
		if (!multiple)
			break;
	}
}

int tb_pub_read(struct tb_pub *p, uint64_t now_ns)
{
	struct tb_conn *c = &p->conn;
	struct tb_frame f;
	int got;

	if (tb_conn_fill(c, now_ns) < 0)
		return -1;
	while ((got = tb_conn_next(c, &f)) == 1) {
		uint32_t method = tb_frame_method(&f);
		if (method == TB_BASIC_ACK || method == TB_BASIC_NACK)
			on_confirm(p, &f, now_ns, method == TB_BASIC_NACK);
		else if (tb_conn_common(c, &f) == 0)
			tb_conn_fail(c, TB_EXIT_PROTOCOL, "unexpected method %u.%u on the publisher's connection", method >> 16,
				     method & 0xFFFF);
		if (c->failed)
			return -1;
	}
	return got;
}
