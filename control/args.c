/*
 * args.c - the arguments of declarations: which ones count, what they may be, and when two tables of them say the same.
 *
 * Owns: the table of known arguments.
 * Core: control's event loop.
 * Spec: RabbitMQ's optional arguments and its texts; AMQP 0-9-1 has the table and leaves its contents to the server.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "amqp/table.h"
#include "control/rib_int.h"

enum arg_kind {
	ARG_COUNT,          /* an integer that is not negative */
	ARG_OVERFLOW,       /* drop-head or reject-publish */
	ARG_CLASSIC,        /* the only type of queue that there is */
	ARG_NOT_IMPLEMENTED /* RabbitMQ gives it a meaning that this version does not */
};

struct arg {
	const char *name;
	enum arg_kind kind;
	bool compared;
};

static const struct arg queue_args[] = {
	{"x-max-length", ARG_COUNT, true},
	{"x-max-length-bytes", ARG_COUNT, true},
	{"x-overflow", ARG_OVERFLOW, true},
	{"x-queue-type", ARG_CLASSIC, false},
	{"x-message-ttl", ARG_NOT_IMPLEMENTED, false},
	{"x-expires", ARG_NOT_IMPLEMENTED, false},
	{"x-dead-letter-exchange", ARG_NOT_IMPLEMENTED, false},
	{"x-dead-letter-routing-key", ARG_NOT_IMPLEMENTED, false},
	{"x-max-priority", ARG_NOT_IMPLEMENTED, false},
	{"x-single-active-consumer", ARG_NOT_IMPLEMENTED, false},
};
static const struct arg exchange_args[] = {
	{"alternate-exchange", ARG_NOT_IMPLEMENTED, false},
};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The words that RabbitMQ has for types, since clients' users look its texts up. */
static const char *type_word(uint8_t type)
{
	switch (type) {
	case 'S':
		return "longstr";
	case 'I':
		return "signedint";
	case 'i':
		return "unsignedint";
	case 'l':
	case 'L':
		return "long";
	case 't':
		return "bool";
	case 'b':
		return "byte";
	case 'B':
		return "unsignedbyte";
	case 's':
	case 'U':
		return "short";
	case 'u':
		return "unsignedshort";
	case 'f':
		return "float";
	case 'd':
		return "double";
	case 'D':
		return "decimal";
	case 'T':
		return "timestamp";
	case 'F':
		return "table";
	case 'A':
		return "array";
	case 'x':
		return "binary";
	default:
		return "void";
	}
}

static bool text_is(const struct amqp_field *f, const char *s)
{
	return amqp_field_is_text(f) && ctl_span_is(f->value, s);
}

/* What is wrong with one argument; false: nothing. */
static bool arg_wrong(const struct arg *a, const struct amqp_field *f, char *out, size_t out_bytes)
{
	switch (a->kind) {
	case ARG_COUNT:
		if (!amqp_field_is_int(f))
			snprintf(out, out_bytes, "\"expected integer, got %s\"", type_word(f->type));
		else if (f->i < 0)
			snprintf(out, out_bytes, "{value_negative,%" PRId64 "}", f->i);
		else
			return false;
		return true;
	case ARG_OVERFLOW:
		if (!amqp_field_is_text(f))
			snprintf(out, out_bytes, "\"expected string, got %s\"", type_word(f->type));
		else if (text_is(f, "reject-publish-dlx"))
			snprintf(out, out_bytes, "reject-publish-dlx is not implemented by this version");
		else if (!text_is(f, "drop-head") && !text_is(f, "reject-publish"))
			snprintf(out, out_bytes, "invalid_overflow");
		else
			return false;
		return true;
	case ARG_CLASSIC:
		if (text_is(f, "classic"))
			return false;
		snprintf(out, out_bytes, "this version does not implement queue types other than classic");
		return true;
	case ARG_NOT_IMPLEMENTED:
		snprintf(out, out_bytes, "this version does not implement it");
		return true;
	}
	return false;
}

static int args_check(const struct arg *known, size_t count, struct amqp_span args, const char *what, struct amqp_span name,
		      struct amqp_span vhost, char *why, size_t why_bytes)
{
	struct amqp_field f;
	const char *bad;
	char wrong[96];
	int code = amqp_table_check(args.ptr, args.len, &bad);

	if (code != 0) {
		snprintf(why, why_bytes, "%s", bad);
		return code;
	}
	for (size_t i = 0; i < count; i++)
		if (amqp_table_find(args.ptr, args.len, known[i].name, &f) && arg_wrong(&known[i], &f, wrong, sizeof wrong)) {
			snprintf(why, why_bytes, "invalid arg '%s' for %s '%.*s' in vhost '%.*s': %s", known[i].name, what,
				 CTL_SPAN_ARG(name), CTL_SPAN_ARG(vhost), wrong);
			return 406;
		}
	return 0;
}

int ctl_queue_args_check(struct amqp_span args, struct amqp_span name, struct amqp_span vhost, char *why, size_t why_bytes)
{
	return args_check(queue_args, COUNT(queue_args), args, "queue", name, vhost, why, why_bytes);
}

int ctl_exchange_args_check(struct amqp_span args, struct amqp_span name, struct amqp_span vhost, char *why, size_t why_bytes)
{
	return args_check(exchange_args, COUNT(exchange_args), args, "exchange", name, vhost, why, why_bytes);
}

static void value_text(bool there, const struct amqp_field *f, char *out, size_t out_bytes)
{
	if (!there)
		snprintf(out, out_bytes, "none");
	else if (amqp_field_is_text(f))
		snprintf(out, out_bytes, "the value '%.*s' of type '%s'", (int)(f->value.len < 60 ? f->value.len : 60),
			 (const char *)f->value.ptr, type_word(f->type));
	else
		snprintf(out, out_bytes, "the value '%" PRId64 "' of type '%s'", f->i, type_word(f->type));
}

int ctl_queue_args_equal(struct amqp_span now, struct amqp_span asked, struct amqp_span name, struct amqp_span vhost, char *why,
			 size_t why_bytes)
{
	for (size_t i = 0; i < COUNT(queue_args); i++) {
		struct amqp_field a, b;
		bool has_a = amqp_table_find(now.ptr, now.len, queue_args[i].name, &a);
		bool has_b = amqp_table_find(asked.ptr, asked.len, queue_args[i].name, &b);
		char text_a[128], text_b[128];

		if (!queue_args[i].compared || (!has_a && !has_b) || (has_a && has_b && amqp_field_equal(&a, &b)))
			continue;
		value_text(has_a, &a, text_a, sizeof text_a);
		value_text(has_b, &b, text_b, sizeof text_b);
		snprintf(why, why_bytes, "inequivalent arg '%s' for queue '%.*s' in vhost '%.*s': received %s but current is %s",
			 queue_args[i].name, CTL_SPAN_ARG(name), CTL_SPAN_ARG(vhost), text_b, text_a);
		return 406;
	}
	return 0;
}
