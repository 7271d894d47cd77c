/*
 * channel.c - channels: opening, closing from either side, flow, and the errors that end a channel or a connection.
 *
 * Owns: the channel pool of a worker and each connection's table of channel numbers.
 * Core: the worker.
 * Spec: AMQP 0-9-1 section 1.5 (channel) and 2.2.4; reply texts as RabbitMQ words them: the code's name, " - ", a sentence.
 */
#include <stdarg.h>
#include <stdio.h>

#include "amqp/front.h"
#include "amqp/table.h"
#include "amqp/wire.h"

#define CHANNEL_TABLE_MIN 64u

/* ---- reply codes ---- */

struct reply_code {
	uint16_t code;
	bool hard;
	const char *name;
};
static const struct reply_code reply_codes[] = {
#define soft                            false
#define hard                            true
#define AMQP_REPLY(number, text, level) {number, level, #text},
#include "amqp/reply_codes.def"
#undef AMQP_REPLY
#undef soft
#undef hard
};

static const struct reply_code *find_code(uint16_t code)
{
	for (size_t i = 0; i < sizeof reply_codes / sizeof reply_codes[0]; i++)
		if (reply_codes[i].code == code)
			return &reply_codes[i];
	return NULL;
}

const char *amqp_code_name(uint16_t code)
{
	const struct reply_code *rc = find_code(code);

	return rc != NULL ? rc->name : NULL;
}

bool amqp_code_is_hard(uint16_t code)
{
	const struct reply_code *rc = find_code(code);

	return rc == NULL || rc->hard;
}

/* Cuts to what a short string holds, between two characters: clients decode the text and choke on half of one. */
static uint32_t cut_text(char *text, size_t len)
{
	if (len > 255) {
		len = 255;
		while (len > 0 && ((uint8_t)text[len] & 0xc0) == 0x80)
			len--;
	}
	if (!amqp_utf8_valid((const uint8_t *)text, len))
		for (size_t i = 0; i < len; i++)
			if ((uint8_t)text[i] & 0x80)
				text[i] = '?';
	return (uint32_t)len;
}

/* "NAME - sentence"; a sentence of control that begins with the name already keeps it once. */
static uint32_t reply_text(char out[512], uint16_t code, const char *fmt, va_list ap)
{
	const char *name = amqp_code_name(code);
	size_t at = 0, name_len;
	int n;

	if (name == NULL)
		name = "INTERNAL_ERROR";
	name_len = strlen(name);
	at = (size_t)snprintf(out, 512, "%s - ", name);
	n = vsnprintf(out + at, 512 - at, fmt, ap);
	if (n < 0)
		n = 0;
	if ((size_t)n >= 512 - at)
		n = (int)(512 - at - 1);
	if ((size_t)n >= name_len + 3 && memcmp(out + at, name, name_len) == 0 && memcmp(out + at + name_len, " - ", 3) == 0) {
		memmove(out, out + at, (size_t)n + 1);
		at = 0;
	}
	return cut_text(out, at + (size_t)n);
}

/* ---- errors ---- */

static enum amqp_verdict conn_error(struct amqp_conn *c, uint16_t code, uint16_t class_id, uint16_t method_id, const char *fmt,
				    va_list ap)
{
	struct amqp_writer w;
	char text[512];
	uint32_t len;

	if (c->state == AMQP_CONN_FREE || c->state == AMQP_CONN_PROTOCOL || c->state >= AMQP_CONN_CLOSING)
		return AMQP_GONE;
	AMQP_COUNT(c->b, connection_errors);
	if (amqp_code_name(code) == NULL)
		code = 541;
	len = reply_text(text, code, fmt, ap); /* before the channels go: the sentence may name things of theirs */
	c->state = AMQP_CONN_CLOSING;          /* and before that, so that nothing more is delivered */
	c->close_deadline_ns = c->b->now_ns + AMQP_CLOSE_WAIT_NS;
	amqp_conn_settle(c);
	amqp_method_begin(&w, 0, AMQP_CLASS_CONNECTION, AMQP_connection_close);
	amqp_put_u16(&w, code);
	amqp_put_shortstr(&w, text, len);
	amqp_put_u16(&w, class_id);
	amqp_put_u16(&w, method_id);
	amqp_send_method(c, &w);
	return AMQP_GONE;
}

static enum amqp_verdict channel_error(struct amqp_conn *c, uint16_t number, uint16_t code, uint16_t class_id, uint16_t method_id,
				       const char *fmt, va_list ap)
{
	struct amqp_channel *ch = number != 0 ? amqp_channel_find(c, number) : NULL;
	struct amqp_writer w;
	char text[512];
	uint32_t len;

	if (ch == NULL)
		return conn_error(c, code, class_id, method_id, fmt, ap);
	if (ch->state != AMQP_CH_OPEN)
		return AMQP_DONE;
	AMQP_COUNT(c->b, channel_errors);
	len = reply_text(text, code, fmt, ap);
	ch->state = AMQP_CH_CLOSING;
	amqp_channel_fini_back(c->b, ch);
	amqp_method_begin(&w, number, AMQP_CLASS_CHANNEL, AMQP_channel_close);
	amqp_put_u16(&w, code);
	amqp_put_shortstr(&w, text, len);
	amqp_put_u16(&w, class_id);
	amqp_put_u16(&w, method_id);
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}

enum amqp_verdict amqp_conn_error(struct amqp_conn *c, uint16_t code, uint16_t class_id, uint16_t method_id, const char *fmt, ...)
{
	enum amqp_verdict v;
	va_list ap;

	va_start(ap, fmt);
	v = conn_error(c, code, class_id, method_id, fmt, ap);
	va_end(ap);
	return v;
}

enum amqp_verdict amqp_channel_error(struct amqp_conn *c, uint16_t channel_number, uint16_t code, uint16_t class_id,
				     uint16_t method_id, const char *fmt, ...)
{
	enum amqp_verdict v;
	va_list ap;

	va_start(ap, fmt);
	v = channel_error(c, channel_number, code, class_id, method_id, fmt, ap);
	va_end(ap);
	return v;
}

enum amqp_verdict amqp_reply_error(struct amqp_conn *c, uint16_t channel_number, uint16_t code, uint16_t class_id,
				   uint16_t method_id, const char *fmt, ...)
{
	enum amqp_verdict v;
	va_list ap;

	va_start(ap, fmt);
	if (amqp_code_is_hard(code))
		v = conn_error(c, code, class_id, method_id, fmt, ap);
	else
		v = channel_error(c, channel_number, code, class_id, method_id, fmt, ap);
	va_end(ap);
	return v;
}

/* ---- the table ---- */

/* False: the message pool has no block that large now. */
static bool grow_table(struct amqp_conn *c, uint16_t number)
{
	uint32_t len = c->channel_table_len != 0 ? c->channel_table_len : CHANNEL_TABLE_MIN;
	uint32_t *table;

	while (len <= number)
		len *= 2;
	if (len == c->channel_table_len)
		return true;
	table = amqp_pool_alloc_client(c->b->pool, len * sizeof *table);
	if (table == NULL)
		return false;
	for (uint32_t i = 0; i < len; i++)
		table[i] = i < c->channel_table_len ? c->channel_by_number[i] : AMQP_NONE;
	if (c->channel_by_number != NULL)
		amqp_pool_free(c->b->pool, c->channel_by_number);
	c->channel_by_number = table;
	c->channel_table_len = len;
	return true;
}

static void free_channel(struct amqp_conn *c, struct amqp_channel *ch)
{
	struct amqp_broker *b = c->b;
	uint32_t idx = c->channel_by_number[ch->number];

	c->channel_by_number[ch->number] = AMQP_NONE;
	c->channels_count--;
	b->channels_count--;
	ch->state = AMQP_CH_FREE;
	b->channels_link[idx] = b->channels_free;
	b->channels_free = idx;
}

void amqp_channels_drop(struct amqp_conn *c)
{
	for (uint32_t n = 1; n < c->channel_table_len && c->channels_count != 0; n++) {
		struct amqp_channel *ch = amqp_channel_find(c, (uint16_t)n);

		if (ch == NULL)
			continue;
		if (ch->state == AMQP_CH_OPEN) {
			ch->state = AMQP_CH_CLOSING; /* nothing is delivered to it while its messages go back */
			amqp_channel_fini_back(c->b, ch);
		}
		free_channel(c, ch);
	}
	if (c->channel_by_number != NULL)
		amqp_pool_free(c->b->pool, c->channel_by_number);
	c->channel_by_number = NULL;
	c->channel_table_len = 0;
}

/* ---- methods ---- */

static enum amqp_verdict send_empty(struct amqp_call *call, uint16_t method_id)
{
	struct amqp_writer w;

	amqp_method_begin(&w, call->channel, AMQP_CLASS_CHANNEL, method_id);
	return amqp_send_method(call->c, &w) ? AMQP_DONE : AMQP_GONE;
}

enum amqp_verdict amqp_on_channel_open(struct amqp_call *call)
{
	struct amqp_conn *c = call->c;
	struct amqp_broker *b = c->b;
	struct amqp_channel *ch;
	struct amqp_writer w;
	uint32_t idx = b->channels_free;

	if (idx == AMQP_NONE)
		return amqp_conn_error(c, 506, call->class_id, call->method_id, "all %u channels are in use",
				       b->limits.channels_max);
	if (!grow_table(c, call->channel))
		return AMQP_STALL;
	b->channels_free = b->channels_link[idx];
	b->channels_count++;
	if (idx >= b->channels_used)
		b->channels_used = idx + 1;
	ch = &b->channels[idx];
	memset(ch, 0, sizeof *ch);
	ch->conn = amqp_conn_idx(c);
	ch->number = call->channel;
	ch->active = true;
	amqp_channel_init_back(ch);
	ch->state = AMQP_CH_OPEN;
	c->channel_by_number[call->channel] = idx;
	c->channels_count++;
	AMQP_COUNT(b, channels_opened);
	amqp_method_begin(&w, call->channel, AMQP_CLASS_CHANNEL, AMQP_channel_open_ok);
	amqp_put_u32(&w, 0); /* reserved, a long string */
	return amqp_send_method(c, &w) ? AMQP_DONE : AMQP_GONE;
}

enum amqp_verdict amqp_on_channel_close(struct amqp_call *call)
{
	struct amqp_channel *ch = call->ch;

	if (ch->state == AMQP_CH_OPEN) {
		if (ch->confirm_queued)
			amqp_confirms_flush(call->c->b); /* what was published is confirmed before the channel goes */
		ch->state = AMQP_CH_CLOSING;
		amqp_channel_fini_back(call->c->b, ch);
		free_channel(call->c, ch);
	}
	/* Both closed at once: ours stands until its close-ok, theirs is answered. */
	return send_empty(call, AMQP_channel_close_ok);
}

enum amqp_verdict amqp_on_channel_close_ok(struct amqp_call *call)
{
	free_channel(call->c, call->ch);
	return AMQP_DONE;
}

enum amqp_verdict amqp_on_channel_flow(struct amqp_call *call)
{
	struct amqp_writer w;
	bool active = amqp_read_u8(&call->args) & 1;

	amqp_channel_flow(call->c->b, call->ch, active);
	amqp_method_begin(&w, call->channel, AMQP_CLASS_CHANNEL, AMQP_channel_flow_ok);
	amqp_put_u8(&w, active);
	return amqp_send_method(call->c, &w) ? AMQP_DONE : AMQP_GONE;
}
