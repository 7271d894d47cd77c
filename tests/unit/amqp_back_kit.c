/*
 * amqp_back_kit.c - see amqp_back_kit.h.
 *
 * Owns: no state but the kit's.
 * Core: test.
 * Spec: AMQP 0-9-1 section 4.2.
 */
#include "tests/unit/amqp_back_kit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "amqp/front.h"
#include "amqp/table.h"

/* ---- transport ---- */

static bool writes(struct bk_conn *c)
{
	c->calls++;
	if (c->aborted || c->shut || c->writes_left == 0)
		return false;
	if (c->fail_nth > 0 && --c->fail_nth == 0)
		return false;
	if (c->writes_left > 0)
		c->writes_left--;
	c->k->writes++;
	if (c->first_write == 0)
		c->first_write = c->k->writes;
	return true;
}

static void room(struct bk_conn *c, size_t len)
{
	if (c->cap - c->len >= len)
		return;
	c->cap = (c->len + len) * 2 + 4096;
	c->out = realloc(c->out, c->cap);
	assert_non_null(c->out);
}

static uint8_t *io_reserve(void *io, size_t len)
{
	struct bk_conn *c = io;

	assert_true(len <= AMQP_RESERVE_MAX);
	if (!writes(c))
		return NULL;
	room(c, len);
	return c->out + c->len;
}

static void io_commit(void *io, size_t len)
{
	((struct bk_conn *)io)->len += len;
}

static bool io_send(void *io, const void *data, size_t len)
{
	struct bk_conn *c = io;

	if (!writes(c))
		return false;
	room(c, len);
	memcpy(c->out + c->len, data, len);
	c->len += len;
	return true;
}

static bool io_send_ref(void *io, const void *data, size_t len, void *owner)
{
	struct bk *k = ((struct bk_conn *)io)->k;
	struct bk_ref *r = &k->refs[k->refs_count];

	if (k->refs_count == BK_REFS || !io_send(io, data, len))
		return false;
	*r = (struct bk_ref){owner, data, malloc(len), len};
	assert_non_null(r->copy);
	memcpy(r->copy, data, len);
	k->refs_count++;
	return true;
}

static bool io_has_room(void *io, size_t bytes, size_t refs)
{
	((struct bk_conn *)io)->calls++;
	(void)bytes;
	(void)refs;
	return true;
}

static bool io_writable(void *io)
{
	struct bk_conn *c = io;

	c->calls++;
	return c->unsent + (c->count_unsent ? c->len - c->read : 0) <= BK_UNSENT_HIGH;
}

static void io_admitted(void *io)
{
	(void)io;
}

static void feed(struct bk_conn *c)
{
	while (c->in_len != 0 && !c->blocked && c->c != NULL && !c->aborted) {
		size_t used = amqp_conn_input(c->c, c->in, c->in_len);

		if (c->aborted)
			return;
		memmove(c->in, c->in + used, c->in_len - used);
		c->in_len -= used;
		c->blocked = c->in_len != 0;
	}
}

static void io_resume(void *io)
{
	struct bk_conn *c = io;

	c->blocked = false;
	feed(c);
}

static void io_shutdown(void *io)
{
	((struct bk_conn *)io)->shut = true;
}

static void io_abort(void *io)
{
	struct bk_conn *c = io;

	c->aborted = true;
	c->c = NULL;
}

static struct amqp_span copy_span(struct amqp_span s)
{
	uint8_t *p = malloc(s.len + 1u);

	assert_non_null(p);
	if (s.len != 0)
		memcpy(p, s.ptr, s.len);
	return (struct amqp_span){p, s.len};
}

static bool on_request(void *ctx, const struct amqp_record *rec)
{
	struct bk *k = ctx;

	if (k->control_full || k->requests_count == sizeof k->requests / sizeof k->requests[0])
		return false;
	k->requests[k->requests_count] = *rec;
	if (k->keep_records) {
		for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
			k->requests[k->requests_count].str[i] = copy_span(rec->str[i]);
		k->requests[k->requests_count].blob = copy_span(rec->blob);
	}
	k->requests_count++;
	return true;
}

static void on_stage(void *ctx, enum amqp_stage stage)
{
	((struct bk *)ctx)->stages[stage]++;
}

static const struct amqp_ops ops = {.reserve = io_reserve,
				    .commit = io_commit,
				    .send = io_send,
				    .send_ref = io_send_ref,
				    .has_room = io_has_room,
				    .writable = io_writable,
				    .admitted = io_admitted,
				    .resume = io_resume,
				    .shutdown = io_shutdown,
				    .abort = io_abort,
				    .request = on_request,
				    .stage = on_stage};

void bk_release(struct bk *k, uint32_t count)
{
	if (count > k->refs_count)
		count = k->refs_count;
	for (uint32_t i = 0; i < count; i++) {
		struct bk_ref *r = &k->refs[i];

		assert_memory_equal(r->data, r->copy, r->len);
		free(r->copy);
		amqp_release(k->b, r->owner);
	}
	memmove(k->refs, k->refs + count, (k->refs_count - count) * sizeof *k->refs);
	k->refs_count -= count;
}

/* ---- life ---- */

void bk_limits(struct amqp_limits *l)
{
	amqp_limits_default(l);
	l->conns_max = BK_CONNS;
	l->channels_max = 256;
	l->consumers_max = 1024;
	l->exchanges_max = 64;
	l->queues_max = 256;
	l->bindings_max = 4096;
	l->entries_max = 4096;
	l->message_pool_bytes = 16u << 20;
	l->message_bytes_max = 1u << 20;
	l->routes_max = 256;
	l->route_queues_max = 4096;
	l->route_cache_max = 256;
	l->rules_max = 4096;
	l->rule_nodes_max = 16384;
	l->rule_key_bytes_max = 1u << 20;
	memcpy(l->secret, "0123456789abcdef", 16);
}

void bk_init(struct bk *k, const struct amqp_limits *l)
{
	const char *err = NULL;
	size_t bytes;

	memset(k, 0, sizeof *k);
	if (l != NULL)
		k->limits = *l;
	else
		bk_limits(&k->limits);
	bytes = amqp_broker_bytes(&k->limits);
	k->mem = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
	k->refs = calloc(BK_REFS, sizeof *k->refs);
	assert_true(k->mem != NULL && k->refs != NULL);
	memset(k->mem, 0, bytes);
	k->b = amqp_broker_init(k->mem, bytes, &k->limits, &ops, k, &err);
	if (k->b == NULL)
		fail_msg("%s", err);
	k->now_ns = 1000000000;
	amqp_set_now(k->b, k->now_ns, 1700000000);
	amqp_control_attached(k->b);
	k->baseline_bytes = amqp_pool_used(k->b->pool);
	bk_apply(k, &(struct amqp_record){.kind = AMQP_OP_RESET}); /* control programs: what it is asked goes out at once */
}

void bk_check(struct bk *k)
{
	const char *broken = amqp_check(k->b);

	if (broken != NULL)
		fail_msg("%s", broken);
}

void bk_fini(struct bk *k)
{
	struct amqp_usage u;

	for (uint32_t i = 0; i < BK_CONNS; i++)
		bk_disconnect(&k->conn[i]);
	bk_check(k);
	assert_true(bk_apply(k, &(struct amqp_record){.kind = AMQP_OP_RESET}));
	k->control_full = false;
	bk_run(k);
	while (k->b->garbage_first != AMQP_NONE || k->b->given_up_first != NULL)
		bk_run(k);
	bk_release(k, k->refs_count);
	bk_check(k);
	amqp_usage(k->b, &u);
	assert_int_equal(u.conns | u.channels | u.consumers | u.exchanges | u.queues | u.bindings | u.entries, 0);
	assert_int_equal(u.messages, 0);
	assert_int_equal(u.message_bytes, k->baseline_bytes);
	for (uint32_t i = 0; i < BK_CONNS; i++) {
		free(k->conn[i].out);
		free(k->conn[i].in);
	}
	for (uint32_t i = 0; i < k->requests_count && k->keep_records; i++) {
		for (unsigned s = 0; s < AMQP_RECORD_STRS; s++)
			free((void *)(uintptr_t)k->requests[i].str[s].ptr);
		free((void *)(uintptr_t)k->requests[i].blob.ptr);
	}
	free(k->refs);
	free(k->mem);
}

/* ---- definitions ---- */

struct amqp_span bk_str(const char *s)
{
	return (struct amqp_span){(const uint8_t *)s, (uint32_t)strlen(s)};
}

static struct amqp_table_writer table(void)
{
	static uint8_t bufs[8][512];
	static unsigned next;
	struct amqp_table_writer w;

	amqp_table_begin(&w, bufs[next++ % 8], sizeof bufs[0]);
	return w;
}

struct amqp_span bk_int_arg(const char *name, int32_t v)
{
	struct amqp_table_writer w = table();

	assert_true(amqp_table_put_i32(&w, name, v));
	return (struct amqp_span){w.buf, (uint32_t)w.len};
}

struct amqp_span bk_int_text_args(const char *name, int32_t v, const char *name2, const char *text)
{
	struct amqp_table_writer w = table();

	assert_true(amqp_table_put_i32(&w, name, v) && amqp_table_put_cstr(&w, name2, text));
	return (struct amqp_span){w.buf, (uint32_t)w.len};
}

bool bk_apply(struct bk *k, const struct amqp_record *rec)
{
	return amqp_apply(k->b, rec);
}

void bk_exchange(struct bk *k, uint32_t id, enum amqp_exchange_type type, const char *name)
{
	assert_true(bk_apply(
		k, &(struct amqp_record){
			   .kind = AMQP_OP_EXCHANGE_ADD, .id = id, .code = (uint16_t)type, .str = {bk_str(name), bk_str("/")}}));
}

void bk_default_exchange(struct bk *k, uint32_t id)
{
	assert_true(bk_apply(k, &(struct amqp_record){.kind = AMQP_OP_EXCHANGE_ADD,
						      .id = id,
						      .code = AMQP_DIRECT,
						      .flags = AMQP_DEF_DEFAULT | AMQP_DEF_DURABLE,
						      .str = {bk_str(""), bk_str("/")}}));
}

void bk_queue_args(struct bk *k, uint32_t id, const char *name, uint32_t flags, struct amqp_span args)
{
	assert_true(bk_apply(
		k, &(struct amqp_record){
			   .kind = AMQP_OP_QUEUE_ADD, .id = id, .flags = flags, .str = {bk_str(name), bk_str("/")}, .blob = args}));
}

void bk_queue(struct bk *k, uint32_t id, const char *name)
{
	bk_queue_args(k, id, name, 0, (struct amqp_span){NULL, 0});
}

void bk_bind_args(struct bk *k, uint32_t id, uint32_t exchange, uint32_t dest, uint32_t flags, uint32_t rule, const char *key,
		  struct amqp_span args)
{
	assert_true(bk_apply(k, &(struct amqp_record){.kind = AMQP_OP_BIND_ADD,
						      .id = id,
						      .id2 = exchange,
						      .id3 = dest,
						      .id4 = rule,
						      .flags = flags,
						      .str = {bk_str(key)},
						      .blob = args}));
}

void bk_bind(struct bk *k, uint32_t id, uint32_t exchange, uint32_t queue, uint32_t rule, const char *key)
{
	bk_bind_args(k, id, exchange, queue, 0, rule, key, (struct amqp_span){NULL, 0});
}

void bk_del(struct bk *k, uint16_t kind, uint32_t id)
{
	assert_true(bk_apply(k, &(struct amqp_record){.kind = kind, .id = id}));
}

/* ---- connections ---- */

void bk_input(struct bk_conn *c, const void *bytes, size_t len)
{
	if (c->c == NULL)
		return;
	c->in = realloc(c->in, c->in_len + len + 1);
	assert_non_null(c->in);
	memcpy(c->in + c->in_len, bytes, len);
	c->in_len += len;
	if (!c->gathers)
		feed(c);
}

void bk_frame(struct bk_conn *c, uint8_t type, uint16_t channel, const void *payload, size_t len)
{
	uint8_t *f = malloc(len + 8);

	assert_non_null(f);
	f[0] = type;
	amqp_set_be16(f + 1, channel);
	amqp_set_be32(f + 3, (uint32_t)len);
	memcpy(f + 7, payload, len);
	f[7 + len] = 0xce;
	bk_input(c, f, len + 8);
	free(f);
}

static size_t put_args(uint8_t *p, const char *format, va_list ap)
{
	uint8_t *at = p;
	struct amqp_span span;
	const char *s;

	for (const char *f = format; *f != '\0'; f++) {
		unsigned bits;

		switch (*f) {
		case 'o':
			*at++ = (uint8_t)va_arg(ap, unsigned);
			break;
		case 'h':
			amqp_set_be16(at, (uint16_t)va_arg(ap, unsigned));
			at += 2;
			break;
		case 'l':
			amqp_set_be32(at, va_arg(ap, unsigned));
			at += 4;
			break;
		case 'q':
			amqp_set_be64(at, va_arg(ap, uint64_t));
			at += 8;
			break;
		case 's':
			s = va_arg(ap, const char *);
			*at++ = (uint8_t)strlen(s);
			memcpy(at, s, strlen(s));
			at += strlen(s);
			break;
		case 'b':
			bits = va_arg(ap, unsigned) & 1;
			for (unsigned n = 1; f[1] == 'b'; f++, n++)
				bits |= (va_arg(ap, unsigned) & 1) << n;
			*at++ = (uint8_t)bits;
			break;
		default:
			span = va_arg(ap, struct amqp_span);
			amqp_set_be32(at, span.len);
			if (span.len != 0)
				memcpy(at + 4, span.ptr, span.len);
			at += 4 + span.len;
			break;
		}
	}
	return (size_t)(at - p);
}

void bk_say(struct bk_conn *c, uint16_t channel, uint16_t class_id, unsigned method_id, ...)
{
	const struct amqp_method *m = amqp_method_find(class_id, (uint16_t)method_id);
	uint8_t buf[4096];
	va_list ap;

	assert_non_null(m);
	amqp_set_be16(buf, class_id);
	amqp_set_be16(buf + 2, (uint16_t)method_id);
	va_start(ap, method_id);
	bk_frame(c, 1, channel, buf, 4 + put_args(buf + 4, m->args, ap));
	va_end(ap);
}

struct bk_conn *bk_connect(struct bk *k, uint16_t channels)
{
	struct bk_conn *c = NULL;

	for (uint32_t i = 0; i < BK_CONNS && c == NULL; i++)
		if (k->conn[i].c == NULL)
			c = &k->conn[i];
	assert_non_null(c);
	free(c->out);
	free(c->in);
	memset(c, 0, sizeof *c);
	c->k = k;
	c->writes_left = -1;
	c->c = amqp_conn_accept(k->b, c, "198.18.0.1", 40000, 5672);
	assert_non_null(c->c);
	/* The handshake is the front's; here a connection begins behind it. */
	bk_input(c, "AMQP\0\0\x09\x01", 8);
	c->c->state = AMQP_CONN_RUNNING;
	c->c->connected_at_s = 1700000000;
	c->c->vhost_id = 0;
	c->c->vhost = bk_str("/");
	c->c->user = bk_str("guest");
	c->c->frame_max = 131072;
	c->c->channel_max = 2047;
	c->c->heartbeat_s = 0;
	c->c->cap_cancel_notify = true;
	for (uint16_t n = 1; n <= channels; n++)
		bk_say(c, n, 20, 10, "");
	c->read = c->len;
	return c;
}

void bk_disconnect(struct bk_conn *c)
{
	struct amqp_conn *conn = c->c;

	c->c = NULL;
	if (conn != NULL)
		amqp_conn_closed(conn);
}

void bk_consume(struct bk_conn *c, uint16_t channel, const char *queue, const char *tag, bool no_ack)
{
	bk_say(c, channel, 60, 20, 0u, queue, tag, 0u, (unsigned)no_ack, 0u, 1u, (struct amqp_span){NULL, 0});
}

void bk_publish_props(struct bk_conn *c, uint16_t channel, const char *exchange, const char *key, bool mandatory, const void *props,
		      size_t props_len, const void *body, size_t len)
{
	uint8_t header[65536] = {0, 60};
	size_t chunk = c->c != NULL ? c->c->frame_max - 8 : 4088;

	c->gathers = c->k->publishes++ % 2 != 0; /* in one segment and frame by frame, turn and turn about */
	bk_say(c, channel, 60, 40, 0u, exchange, key, (unsigned)mandatory, 0u);
	amqp_set_be64(header + 4, len);
	memcpy(header + 12, props, props_len);
	bk_frame(c, 2, channel, header, 12 + props_len);
	for (size_t at = 0; at < len; at += chunk)
		bk_frame(c, 3, channel, (const uint8_t *)body + at, len - at < chunk ? len - at : chunk);
	if (c->gathers) {
		c->gathers = false;
		feed(c);
	}
}

void bk_publish_long(struct bk_conn *c, uint16_t channel, const char *exchange, const char *key, const void *body, size_t len)
{
	bk_publish_props(c, channel, exchange, key, false, "\0", 2, body, len);
}

void bk_publish(struct bk_conn *c, uint16_t channel, const char *exchange, const char *key, const char *body)
{
	bk_publish_long(c, channel, exchange, key, body, strlen(body));
}

void bk_publish_mandatory(struct bk_conn *c, uint16_t channel, const char *exchange, const char *key, const char *body)
{
	bk_publish_props(c, channel, exchange, key, true, "\0", 2, body, strlen(body));
}

void bk_unsent(struct bk_conn *c, size_t bytes)
{
	c->unsent = bytes;
	if (c->c != NULL && bytes <= BK_UNSENT_HIGH / 2)
		amqp_conn_writable(c->c);
}

void bk_run(struct bk *k)
{
	for (unsigned i = 0; i < 8; i++) {
		k->now_ns += 1000000;
		amqp_set_now(k->b, k->now_ns, 1700000000);
		amqp_burst_end(k->b);
		amqp_tick(k->b);
	}
}

/* ---- transcript ---- */

static size_t print_args(char *out, size_t cap, const char *format, struct amqp_reader *r)
{
	size_t n = 0;
	struct amqp_span s;

	for (const char *f = format; *f != '\0'; f++) {
		const char *sep = f == format ? "" : ", ";
		unsigned bits;

		switch (*f) {
		case 'h':
			n += (size_t)snprintf(out + n, cap - n, "%s%u", sep, amqp_read_u16(r));
			break;
		case 'l':
			n += (size_t)snprintf(out + n, cap - n, "%s%u", sep, amqp_read_u32(r));
			break;
		case 'q':
			n += (size_t)snprintf(out + n, cap - n, "%s%llu", sep, (unsigned long long)amqp_read_u64(r));
			break;
		case 's':
			s = amqp_read_shortstr(r);
			n += (size_t)snprintf(out + n, cap - n, "%s%.*s", sep, (int)s.len, (const char *)s.ptr);
			break;
		case 'b':
			bits = amqp_read_u8(r);
			n += (size_t)snprintf(out + n, cap - n, "%s%u", sep, bits & 1);
			for (; f[1] == 'b'; f++)
				n += (size_t)snprintf(out + n, cap - n, ", %u", (bits >>= 1) & 1);
			break;
		default:
			fail_msg("the kit does not print '%c'", *f);
		}
		assert_true(n < cap);
	}
	assert_false(r->bad);
	assert_ptr_equal(r->p, r->end); /* every method as methods.def says */
	return n;
}

static size_t print_frame(char *out, size_t cap, uint8_t type, uint16_t channel, const uint8_t *p, uint32_t len)
{
	struct amqp_reader r = {p, p + len, false};
	const struct amqp_method *m;
	size_t n;

	if (type == 2)
		return (size_t)snprintf(out, cap, "%u header(%u, %llu)\n", channel, amqp_get_be16(p),
					(unsigned long long)amqp_get_be64(p + 4));
	if (type == 3)
		return (size_t)snprintf(out, cap, "%u body(%u, %.*s)\n", channel, len, (int)(len < 24 ? len : 24), (const char *)p);
	assert_int_equal(type, 1);
	m = amqp_method_find(amqp_get_be16(p), amqp_get_be16(p + 2));
	assert_non_null(m);
	amqp_read_u32(&r);
	n = (size_t)snprintf(out, cap, "%u %s(", channel, m->name);
	n += print_args(out + n, cap - n, m->args, &r);
	return n + (size_t)snprintf(out + n, cap - n, ")\n");
}

const char *bk_read(struct bk_conn *c)
{
	char *out = c->k->text;
	size_t n = 0, cap = sizeof c->k->text, max = c->c != NULL ? c->c->frame_max : 131072;

	out[0] = '\0';
	while (c->read < c->len) {
		const uint8_t *f = c->out + c->read;
		size_t left = c->len - c->read;
		uint32_t len = left >= 8 ? amqp_get_be32(f + 3) : 0;

		if (left < 8 || left < 8 + (size_t)len) {
			assert_true(c->aborted); /* half a frame is seen only before a reset */
			break;
		}
		assert_true(8 + len <= max);
		assert_int_equal(f[7 + len], 0xce);
		n += print_frame(out + n, cap - n, f[0], amqp_get_be16(f + 1), f + 7, len);
		assert_true(n < cap);
		c->read += 8 + (size_t)len;
	}
	if (c->shut || c->aborted)
		snprintf(out + n, cap - n, "%s\n", c->aborted ? "RST" : "FIN");
	return out;
}
