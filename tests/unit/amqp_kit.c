/*
 * amqp_kit.c - see amqp_kit.h: the client's bytes, the transport, the transcript.
 *
 * Owns: no state but the kit's.
 * Core: test.
 * Spec: AMQP 0-9-1 section 4.2.
 */
#include "tests/unit/amqp_kit.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "amqp/table.h"
#include "amqp/wire.h"
#include "tests/unit/amqp_kit_control.h"

/* ---- bytes ---- */

void kit_raw(struct kit_bytes *k, const void *bytes, size_t len)
{
	if (k->cap - k->len < len) {
		k->cap = (k->len + len) * 2 + 64;
		k->p = realloc(k->p, k->cap);
		assert(k->p != NULL);
	}
	if (len != 0)
		memcpy(k->p + k->len, bytes, len);
	k->len += len;
}

void kit_bytes_free(struct kit_bytes *k)
{
	free(k->p);
	memset(k, 0, sizeof *k);
}

static void put_int(struct kit_bytes *k, uint64_t v, unsigned bytes)
{
	uint8_t be[8];

	amqp_set_be64(be, v);
	kit_raw(k, be + 8 - bytes, bytes);
}

static void put_head(struct kit_bytes *k, uint8_t type, uint16_t channel, size_t len)
{
	put_int(k, type, 1);
	put_int(k, channel, 2);
	put_int(k, len, 4);
}

void kit_frame(struct kit_bytes *k, uint8_t type, uint16_t channel, const void *payload, size_t len, uint8_t end)
{
	put_head(k, type, channel, len);
	kit_raw(k, payload, len);
	put_int(k, end, 1);
}

static void put_args(struct kit_bytes *k, const char *format, va_list ap)
{
	const char *s;
	struct amqp_span span;

	for (const char *f = format; *f != '\0'; f++) {
		switch (*f) {
		case 'o':
			put_int(k, va_arg(ap, unsigned), 1);
			break;
		case 'h':
			put_int(k, va_arg(ap, unsigned), 2);
			break;
		case 'l':
			put_int(k, va_arg(ap, unsigned), 4);
			break;
		case 'q':
			put_int(k, va_arg(ap, uint64_t), 8);
			break;
		case 's':
			s = va_arg(ap, const char *);
			put_int(k, strlen(s), 1);
			kit_raw(k, s, strlen(s));
			break;
		case 'b': {
			unsigned bits = va_arg(ap, unsigned) & 1, n = 1;

			for (; f[1] == 'b'; f++, n++)
				bits |= (va_arg(ap, unsigned) & 1) << n;
			put_int(k, bits, 1);
			break;
		}
		default:
			span = va_arg(ap, struct amqp_span);
			put_int(k, span.len, 4);
			kit_raw(k, span.ptr, span.len);
			break;
		}
	}
}

static void put_method(struct kit_bytes *k, uint16_t channel, uint32_t key, va_list ap)
{
	const struct amqp_method *m = amqp_method_find((uint16_t)(key >> 16), (uint16_t)key);
	struct kit_bytes payload = {0};

	assert(m != NULL);
	put_int(&payload, key, 4);
	put_args(&payload, m->args, ap);
	kit_frame(k, AMQP_FRAME_METHOD, channel, payload.p, payload.len, AMQP_FRAME_END);
	kit_bytes_free(&payload);
}

void kit_method(struct kit_bytes *k, uint16_t channel, uint32_t key, ...)
{
	va_list ap;

	va_start(ap, key);
	put_method(k, channel, key, ap);
	va_end(ap);
}

void kit_publish(struct kit_bytes *k, uint16_t channel, const char *exchange, const char *key, const void *body, size_t len,
		 size_t chunk)
{
	uint8_t header[14] = {0, 60};

	kit_method(k, channel, AMQP_M_basic_publish, 0u, exchange, key, 0u, 0u);
	amqp_set_be64(header + 4, len);
	kit_frame(k, AMQP_FRAME_HEADER, channel, header, sizeof header, AMQP_FRAME_END);
	for (size_t at = 0; at < len; at += chunk)
		kit_frame(k, AMQP_FRAME_BODY, channel, (const uint8_t *)body + at, len - at < chunk ? len - at : chunk,
			  AMQP_FRAME_END);
}

void kit_handshake(struct kit_bytes *k)
{
	static const uint8_t response[] = "\0guest\0guest";
	uint8_t props[256];
	struct amqp_table_writer t;

	amqp_table_begin(&t, props, sizeof props);
	amqp_table_put_cstr(&t, "product", "kit");
	amqp_table_open(&t, "capabilities");
	amqp_table_put_bool(&t, "authentication_failure_close", true);
	amqp_table_put_bool(&t, "consumer_cancel_notify", true);
	amqp_table_close(&t);
	kit_raw(k, "AMQP\0\0\x09\x01", 8);
	kit_method(k, 0, AMQP_M_connection_start_ok, (struct amqp_span){props, (uint32_t)t.len}, "PLAIN",
		   (struct amqp_span){response, sizeof response - 1}, "en_US");
	kit_method(k, 0, AMQP_M_connection_tune_ok, 2047u, 131072u, 60u);
	kit_method(k, 0, AMQP_M_connection_open, "/", "", 0u);
}

/* ---- transport ---- */

static uint8_t *io_reserve(void *io, size_t len)
{
	struct kit_client *cl = io;

	assert(len <= AMQP_RESERVE_MAX && !cl->rst);
	if (cl->no_room || cl->fin)
		return NULL;
	kit_raw(&cl->out, NULL, 0);
	if (cl->out.cap - cl->out.len < len) {
		cl->out.cap = (cl->out.len + len) * 2;
		cl->out.p = realloc(cl->out.p, cl->out.cap);
		assert(cl->out.p != NULL);
	}
	return cl->out.p + cl->out.len;
}

static void io_commit(void *io, size_t len)
{
	struct kit_client *cl = io;

	assert(cl->out.cap - cl->out.len >= len);
	cl->out.len += len;
}

static bool io_send(void *io, const void *data, size_t len)
{
	struct kit_client *cl = io;

	assert(!cl->rst);
	if (cl->no_room || cl->fin)
		return false;
	kit_raw(&cl->out, data, len);
	return true;
}

static bool io_send_ref(void *io, const void *data, size_t len, void *owner)
{
	struct kit_client *cl = io;
	struct kit *k = cl->k;

	if (k->owners_count == sizeof k->owners / sizeof k->owners[0] || !io_send(io, data, len))
		return false;
	k->owners[k->owners_count++] = owner;
	return true;
}

static bool io_has_room(void *io, size_t bytes, size_t refs)
{
	(void)io;
	(void)bytes;
	(void)refs;
	return true;
}

static bool io_writable(void *io)
{
	return !((struct kit_client *)io)->over_mark;
}

static void io_admitted(void *io)
{
	struct kit_client *cl = io;

	assert(!cl->admitted);
	cl->admitted = true;
}

/* As the TCP stack does it: what was left is handed over from inside. */
static void hand_over(struct kit_client *cl)
{
	while (!cl->blocked && cl->in.len != 0 && cl->c != NULL && !cl->rst) {
		struct kit_bytes lent = cl->in;
		size_t used;

		/* The transport lends its bytes at their exact size, so that ASan sees a read beyond them. */
		lent.p = malloc(lent.len);
		assert(lent.p != NULL);
		memcpy(lent.p, cl->in.p, lent.len);
		used = amqp_conn_input(cl->c, lent.p, lent.len);
		assert(used <= lent.len);
		memset(lent.p, 0xee, lent.len);
		free(lent.p);
		if (cl->rst)
			break;
		memmove(cl->in.p, cl->in.p + used, cl->in.len - used);
		cl->in.len -= used;
		if (cl->in.len != 0)
			cl->blocked = true;
	}
	if (cl->in.len == 0 && cl->eof_due && cl->c != NULL && !cl->rst) {
		cl->eof_due = false;
		amqp_conn_eof(cl->c);
	}
}

static void io_resume(void *io)
{
	struct kit_client *cl = io;

	cl->resumes++;
	if (!cl->blocked)
		return;
	cl->blocked = false;
	hand_over(cl);
}

static void io_shutdown(void *io)
{
	struct kit_client *cl = io;

	assert(!cl->fin && !cl->rst);
	cl->fin = true;
}

static void io_abort(void *io)
{
	struct kit_client *cl = io;
	struct amqp_conn *c = cl->c;

	assert(!cl->rst);
	cl->rst = true;
	cl->c = NULL;
	amqp_conn_closed(c); /* a transport may say so even then */
}

const struct amqp_ops kit_ops = {.reserve = io_reserve,
				 .commit = io_commit,
				 .send = io_send,
				 .send_ref = io_send_ref,
				 .has_room = io_has_room,
				 .writable = io_writable,
				 .admitted = io_admitted,
				 .resume = io_resume,
				 .shutdown = io_shutdown,
				 .abort = io_abort,
				 .request = kit_on_request};

void kit_release_refs(struct kit *k)
{
	while (k->owners_count != 0)
		amqp_release(k->b, k->owners[--k->owners_count]);
}

struct kit_client *kit_accept(struct kit *k)
{
	for (unsigned i = 0; i < KIT_CLIENTS; i++) {
		struct kit_client *cl = &k->client[i];

		if (cl->c != NULL)
			continue;
		kit_bytes_free(&cl->out);
		kit_bytes_free(&cl->in);
		memset(cl, 0, sizeof *cl);
		cl->k = k;
		cl->c = amqp_conn_accept(k->b, cl, "198.18.0.1", (uint16_t)(40000 + i), 5672);
		return cl->c != NULL ? cl : NULL;
	}
	return NULL;
}

void kit_feed(struct kit_client *cl, const void *bytes, size_t len)
{
	if (cl->c == NULL)
		return;
	kit_raw(&cl->in, bytes, len);
	hand_over(cl);
}

void kit_send(struct kit_client *cl, const void *bytes, size_t len)
{
	kit_feed(cl, bytes, len);
	kit_run(cl->k);
}

void kit_say(struct kit_client *cl, uint16_t channel, uint32_t key, ...)
{
	struct kit_bytes k = {0};
	va_list ap;

	va_start(ap, key);
	put_method(&k, channel, key, ap);
	va_end(ap);
	kit_send(cl, k.p, k.len);
	kit_bytes_free(&k);
}

void kit_eof(struct kit_client *cl)
{
	cl->eof_due = true;
	hand_over(cl);
	kit_run(cl->k);
}

void kit_close(struct kit_client *cl)
{
	struct amqp_conn *c = cl->c;

	cl->c = NULL;
	if (c != NULL)
		amqp_conn_closed(c);
	kit_run(cl->k);
}

struct kit_client *kit_login(struct kit *k, uint16_t channels)
{
	struct kit_client *cl = kit_accept(k);
	struct kit_bytes bytes = {0};

	assert(cl != NULL);
	kit_handshake(&bytes);
	for (uint16_t n = 1; n <= channels; n++)
		kit_method(&bytes, n, AMQP_M_channel_open, "");
	kit_send(cl, bytes.p, bytes.len);
	kit_bytes_free(&bytes);
	assert(cl->c != NULL && cl->c->state == AMQP_CONN_RUNNING && cl->c->channels_count == channels);
	kit_read(cl);
	return cl;
}

/* ---- time ---- */

void kit_run(struct kit *k)
{
	uint64_t seen;
	unsigned rounds = 0;

	/* A round in which nothing was sent, asked or consumed is the last one. */
	do {
		seen = kit_pulse(k);
		while (!k->silent && kit_answer(k))
			;
		amqp_burst_end(k->b);
		k->now_ns += 1000000; /* what is done once a millisecond is due */
		amqp_set_now(k->b, k->now_ns, 1700000000u + k->now_ns / KIT_SECOND);
		amqp_tick(k->b);
		while (!k->silent && kit_answer(k))
			;
		rounds++;
	} while ((seen != kit_pulse(k) || rounds < 3) && rounds < 1000);
}

void kit_pass(struct kit *k, uint64_t ns)
{
	uint64_t until_ns = k->now_ns + ns;

	while (k->now_ns < until_ns) {
		k->now_ns += until_ns - k->now_ns < 50000000 ? until_ns - k->now_ns : 50000000;
		amqp_set_now(k->b, k->now_ns, 1700000000u + k->now_ns / KIT_SECOND);
		amqp_tick(k->b);
		while (!k->silent && kit_answer(k))
			;
		amqp_burst_end(k->b);
	}
}

/* ---- transcript ---- */

struct printer {
	char *out;
	size_t len, cap;
};

static void say(struct printer *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct printer *p, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(p->out + p->len, p->cap - p->len, fmt, ap);
	va_end(ap);
	assert(n >= 0 && (size_t)n < p->cap - p->len);
	p->len += (size_t)n;
}

static void say_args(struct printer *p, const char *format, struct amqp_reader *r)
{
	struct amqp_span s;
	char table[2048];

	for (const char *f = format; *f != '\0'; f++) {
		const char *sep = f == format ? "" : ", ";

		switch (*f) {
		case 'o':
			say(p, "%s%u", sep, amqp_read_u8(r));
			break;
		case 'h':
			say(p, "%s%u", sep, amqp_read_u16(r));
			break;
		case 'l':
			say(p, "%s%u", sep, amqp_read_u32(r));
			break;
		case 'q':
			say(p, "%s%llu", sep, (unsigned long long)amqp_read_u64(r));
			break;
		case 's':
			s = amqp_read_shortstr(r);
			say(p, "%s%.*s", sep, AMQP_SPAN_ARG(s));
			break;
		case 'S':
			s = amqp_read_longstr(r);
			say(p, "%s%.*s", sep, AMQP_SPAN_ARG(s));
			break;
		case 't':
			s = amqp_read_longstr(r);
			assert(amqp_table_check(s.ptr, s.len, NULL) == 0);
			amqp_table_print(table, sizeof table, s.ptr, s.len);
			say(p, "%s{%s}", sep, table);
			break;
		default: {
			unsigned bits = amqp_read_u8(r);

			say(p, "%s%u", sep, bits & 1);
			for (; f[1] == 'b'; f++)
				say(p, ", %u", (bits >>= 1) & 1);
			break;
		}
		}
	}
	assert(!r->bad && r->p == r->end); /* the broker wrote every method as methods.def says */
}

static void say_frame(struct printer *p, uint8_t type, uint16_t channel, const uint8_t *payload, uint32_t len)
{
	struct amqp_reader r = {payload, payload + len, false};
	const struct amqp_method *m;

	switch (type) {
	case AMQP_FRAME_METHOD:
		m = amqp_method_find(amqp_read_u16(&r), amqp_get_be16(payload + 2));
		assert(m != NULL && m->direction != 'C');
		amqp_read_u16(&r);
		say(p, "%u %s(", channel, m->name);
		say_args(p, m->args, &r);
		say(p, ")\n");
		break;
	case AMQP_FRAME_HEADER:
		assert(len >= 14);
		say(p, "%u header(%u, %llu)\n", channel, amqp_get_be16(payload), (unsigned long long)amqp_get_be64(payload + 4));
		break;
	case AMQP_FRAME_BODY:
		say(p, "%u body(%.*s)\n", channel, (int)(len < 64 ? len : 64), (const char *)payload);
		break;
	default:
		assert(type == AMQP_FRAME_HEARTBEAT && channel == 0 && len == 0);
		say(p, "heartbeat\n");
		break;
	}
}

const char *kit_read(struct kit_client *cl)
{
	struct printer p = {cl->k->text, 0, sizeof cl->k->text};
	size_t at = cl->out_read;

	p.out[0] = '\0';
	if (cl->out.len - at >= 8 && memcmp(cl->out.p + at, "AMQP", 4) == 0) {
		say(&p, "AMQP %u %u %u %u\n", cl->out.p[at + 4], cl->out.p[at + 5], cl->out.p[at + 6], cl->out.p[at + 7]);
		at += 8;
	}
	while (at < cl->out.len) {
		const uint8_t *f = cl->out.p + at;
		uint32_t len;

		assert(cl->out.len - at >= 8); /* never half a frame */
		len = amqp_get_be32(f + 3);
		assert(cl->out.len - at >= 8 + (size_t)len && f[7 + len] == AMQP_FRAME_END);
		say_frame(&p, f[0], amqp_get_be16(f + 1), f + 7, len);
		at += 8 + (size_t)len;
	}
	cl->out_read = at;
	if (cl->fin)
		say(&p, "FIN\n");
	if (cl->rst)
		say(&p, "RST\n");
	return p.out;
}
