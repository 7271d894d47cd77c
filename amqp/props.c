/*
 * props.c - the content header of class basic: every property's flag, kind and length is checked, what the broker acts on is read.
 *
 * Owns: no state.
 * Core: the worker.
 * Spec: AMQP 0-9-1 sections 2.3.5.2 and 1.8.1 (properties of class basic, in the order of their flag bits).
 */
#include "amqp/back.h"
#include "amqp/table.h"

enum kind { NO_PROPERTY, PASSED_TEXT, SHORT_TEXT, OCTET, STAMP, TABLE }; /* passed: that nobody here reads */

#define FLAG_HEADERS       (1u << 13)
#define FLAG_DELIVERY_MODE (1u << 12)
#define FLAG_EXPIRATION    (1u << 8)
#define FLAG_USER_ID       (1u << 4)

/* By flag bit. Bit 1 is unused and bit 0 says that another word of flags follows: class basic needs neither. */
static const uint8_t kind_of_bit[16] = {
	[15] = PASSED_TEXT, /* content-type */
	[14] = PASSED_TEXT, /* content-encoding */
	[13] = TABLE,       /* headers */
	[12] = OCTET,       /* delivery-mode */
	[11] = OCTET,       /* priority */
	[10] = PASSED_TEXT, /* correlation-id */
	[9] = PASSED_TEXT,  /* reply-to */
	[8] = SHORT_TEXT,   /* expiration */
	[7] = PASSED_TEXT,  /* message-id */
	[6] = STAMP,        /* timestamp */
	[5] = PASSED_TEXT,  /* type */
	[4] = SHORT_TEXT,   /* user-id */
	[3] = PASSED_TEXT,  /* app-id */
	[2] = PASSED_TEXT,  /* cluster-id */
};

static uint16_t read_table(struct amqp_reader *r, struct amqp_props *out, const char **why)
{
	out->headers = amqp_read_longstr(r);
	if (r->bad || out->headers.len == 0)
		return 0;
	return (uint16_t)amqp_table_check(out->headers.ptr, out->headers.len, why);
}

static uint16_t read_property(struct amqp_reader *r, unsigned bit, struct amqp_props *out, const char **why)
{
	struct amqp_span s;
	uint8_t octet;

	switch (kind_of_bit[bit]) {
	case SHORT_TEXT:
		s = amqp_read_shortstr(r);
		if (1u << bit == FLAG_EXPIRATION)
			out->expiration = s;
		else if (1u << bit == FLAG_USER_ID)
			out->user_id = s;
		return 0;
	case OCTET:
		octet = amqp_read_u8(r);
		if (1u << bit == FLAG_DELIVERY_MODE)
			out->delivery_mode = octet;
		return 0;
	case STAMP:
		amqp_read_u64(r);
		return 0;
	case TABLE:
		return read_table(r, out, why);
	default:
		*why = "the content header has property flags that class basic does not define";
		return 502;
	}
}

uint16_t amqp_props_read(struct amqp_span header, struct amqp_props *out, const char **why)
{
	struct amqp_reader r = {header.ptr + 12, header.ptr + header.len, false};
	uint16_t code;
	uint32_t left;

	memset(out, 0, sizeof *out);
	left = out->flags = amqp_read_u16(&r);
	while (left != 0 && !r.bad) {
		unsigned bit = 31u - (unsigned)__builtin_clz(left);

		left &= ~(1u << bit);
		if (kind_of_bit[bit] == PASSED_TEXT) {
			r.bad = r.p == r.end || *r.p >= r.end - r.p;
			r.p += r.bad ? 0 : 1 + *r.p;
			continue;
		}
		code = read_property(&r, bit, out, why);
		if (code != 0)
			return code;
	}
	if (r.bad) {
		*why = "the content header is cut short";
		return 501;
	}
	if (r.p != r.end) {
		*why = "octets are left over after the content header's properties";
		return 502;
	}
	return 0;
}

/* The header was checked when it came, so that the two texts and the table are there if their flags say so. */
struct amqp_span amqp_msg_headers(const struct amqp_msg *m)
{
	const uint8_t *h = amqp_msg_header(m);
	struct amqp_reader r = {h + 14, h + m->header_bytes, false};
	uint16_t flags = amqp_get_be16(h + 12);

	if (!(flags & FLAG_HEADERS))
		return (struct amqp_span){h, 0};
	if (flags & 1u << 15)
		amqp_read_shortstr(&r);
	if (flags & 1u << 14)
		amqp_read_shortstr(&r);
	return amqp_read_longstr(&r);
}
