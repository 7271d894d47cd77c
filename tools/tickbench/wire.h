/* AMQP 0-9-1 on the wire as a load generator needs it: bounded output bytes, the frame splitter, the few methods it speaks.
 * Runs inside tickbench alone, on whichever thread owns the connection; it shares no code with the broker it measures.
 * Specification: AMQP 0-9-1, sections 4.2.2 to 4.2.6 (framing) and the method tables of the class chapters. */
#ifndef TICKBENCH_WIRE_H
#define TICKBENCH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TB_FRAME_METHOD    1
#define TB_FRAME_HEADER    2
#define TB_FRAME_BODY      3
#define TB_FRAME_HEARTBEAT 8
#define TB_FRAME_END       0xCE
#define TB_FRAME_OVERHEAD  8
#define TB_FRAME_MIN_MAX   4096 /* the smallest frame-max that may be negotiated */

/* class << 16 | method */
#define TB_METHOD(class_id, method_id) (((uint32_t)(class_id) << 16) | (uint32_t)(method_id))
enum tb_method {
	TB_CONNECTION_START = TB_METHOD(10, 10),
	TB_CONNECTION_START_OK = TB_METHOD(10, 11),
	TB_CONNECTION_SECURE = TB_METHOD(10, 20),
	TB_CONNECTION_TUNE = TB_METHOD(10, 30),
	TB_CONNECTION_TUNE_OK = TB_METHOD(10, 31),
	TB_CONNECTION_OPEN = TB_METHOD(10, 40),
	TB_CONNECTION_OPEN_OK = TB_METHOD(10, 41),
	TB_CONNECTION_CLOSE = TB_METHOD(10, 50),
	TB_CONNECTION_CLOSE_OK = TB_METHOD(10, 51),
	TB_CONNECTION_BLOCKED = TB_METHOD(10, 60),
	TB_CONNECTION_UNBLOCKED = TB_METHOD(10, 61),
	TB_CHANNEL_OPEN = TB_METHOD(20, 10),
	TB_CHANNEL_OPEN_OK = TB_METHOD(20, 11),
	TB_CHANNEL_FLOW = TB_METHOD(20, 20),
	TB_CHANNEL_FLOW_OK = TB_METHOD(20, 21),
	TB_CHANNEL_CLOSE = TB_METHOD(20, 40),
	TB_CHANNEL_CLOSE_OK = TB_METHOD(20, 41),
	TB_EXCHANGE_DECLARE = TB_METHOD(40, 10),
	TB_EXCHANGE_DECLARE_OK = TB_METHOD(40, 11),
	TB_EXCHANGE_DELETE = TB_METHOD(40, 20),
	TB_EXCHANGE_DELETE_OK = TB_METHOD(40, 21),
	TB_QUEUE_DECLARE = TB_METHOD(50, 10),
	TB_QUEUE_DECLARE_OK = TB_METHOD(50, 11),
	TB_QUEUE_BIND = TB_METHOD(50, 20),
	TB_QUEUE_BIND_OK = TB_METHOD(50, 21),
	TB_BASIC_QOS = TB_METHOD(60, 10),
	TB_BASIC_QOS_OK = TB_METHOD(60, 11),
	TB_BASIC_CONSUME = TB_METHOD(60, 20),
	TB_BASIC_CONSUME_OK = TB_METHOD(60, 21),
	TB_BASIC_CANCEL = TB_METHOD(60, 30),
	TB_BASIC_PUBLISH = TB_METHOD(60, 40),
	TB_BASIC_RETURN = TB_METHOD(60, 50),
	TB_BASIC_DELIVER = TB_METHOD(60, 60),
	TB_BASIC_ACK = TB_METHOD(60, 80),
	TB_BASIC_NACK = TB_METHOD(60, 120),
	TB_CONFIRM_SELECT = TB_METHOD(85, 10),
	TB_CONFIRM_SELECT_OK = TB_METHOD(85, 11),
};

static inline uint16_t tb_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t tb_get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t tb_get64(const uint8_t *p)
{
	return (uint64_t)tb_get32(p) << 32 | tb_get32(p + 4);
}

static inline void tb_set16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline void tb_set32(uint8_t *p, uint32_t v)
{
	tb_set16(p, (uint16_t)(v >> 16));
	tb_set16(p + 2, (uint16_t)v);
}

static inline void tb_set64(uint8_t *p, uint64_t v)
{
	tb_set32(p, (uint32_t)(v >> 32));
	tb_set32(p + 4, (uint32_t)v);
}

/* Bytes waiting to be sent (or a template being built): written at tail, taken from head, never larger than cap. */
struct tb_out {
	uint8_t *bytes;
	size_t head;
	size_t tail;
	size_t cap;
	bool overflow; /* a put did not fit: nothing after it may be sent */
	size_t frame;  /* where the frame being built begins */
};

bool tb_out_init(struct tb_out *o, size_t cap_bytes);
void tb_out_fini(struct tb_out *o);
/* Moves what is left to the front, so that the free space is in one piece. */
void tb_out_compact(struct tb_out *o);

void tb_put8(struct tb_out *o, uint8_t v);
void tb_put16(struct tb_out *o, uint16_t v);
void tb_put32(struct tb_out *o, uint32_t v);
void tb_put64(struct tb_out *o, uint64_t v);
void tb_put_bytes(struct tb_out *o, const void *bytes, size_t length);
void tb_put_shortstr(struct tb_out *o, const char *text);
void tb_put_longstr(struct tb_out *o, const void *bytes, size_t length);
/* One field of a table: a long string or a boolean. Spec: AMQP 0-9-1 section 4.2.5.5. */
void tb_put_field_text(struct tb_out *o, const char *name, const char *value);
void tb_put_field_bool(struct tb_out *o, const char *name, bool value);
/* A length-prefixed block (table): begin returns the mark that end patches. */
size_t tb_put_block_begin(struct tb_out *o);
void tb_put_block_end(struct tb_out *o, size_t mark);

/* Opens a method frame (or any frame) and closes it again with its size and end octet. */
void tb_frame_begin(struct tb_out *o, uint8_t type, uint16_t channel);
void tb_method_begin(struct tb_out *o, uint16_t channel, enum tb_method method);
void tb_frame_finish(struct tb_out *o);
/* A whole method frame without arguments. */
void tb_put_bare_method(struct tb_out *o, uint16_t channel, enum tb_method method);

struct tb_frame {
	uint8_t type;
	uint16_t channel;
	uint32_t length; /* of the payload */
	const uint8_t *payload;
};

enum tb_parse {
	TB_PARSE_FRAME, /* *used bytes were one whole frame */
	TB_PARSE_MORE,  /* not a whole frame yet */
	TB_PARSE_BAD_SIZE,
	TB_PARSE_BAD_END,
	TB_PARSE_NOT_AMQP, /* a protocol header came instead of a frame: the peer refuses our version */
};

/* Splits the first frame off the given bytes; the payload is lent, not copied.
 * Spec: AMQP 0-9-1 section 4.2.3; frame_max counts the whole frame. */
static inline enum tb_parse tb_frame_parse(const uint8_t *bytes, size_t length, uint32_t frame_max, struct tb_frame *f,
					   size_t *used)
{
	if (length < 7) {
		if (length >= 1 && bytes[0] == 'A' && memcmp(bytes, "AMQP", length < 4 ? length : 4) == 0)
			return length >= 4 ? TB_PARSE_NOT_AMQP : TB_PARSE_MORE;
		return TB_PARSE_MORE;
	}
	f->type = bytes[0];
	f->channel = tb_get16(bytes + 1);
	f->length = tb_get32(bytes + 3);
	if (f->type == 'A' && memcmp(bytes, "AMQP", 4) == 0)
		return TB_PARSE_NOT_AMQP;
	if (f->length > frame_max - TB_FRAME_OVERHEAD)
		return TB_PARSE_BAD_SIZE;
	if (length < (size_t)f->length + TB_FRAME_OVERHEAD)
		return TB_PARSE_MORE;
	if (bytes[7 + f->length] != TB_FRAME_END)
		return TB_PARSE_BAD_END;
	f->payload = bytes + 7;
	*used = (size_t)f->length + TB_FRAME_OVERHEAD;
	return TB_PARSE_FRAME;
}

static inline uint32_t tb_frame_method(const struct tb_frame *f)
{
	return f->type == TB_FRAME_METHOD && f->length >= 4 ? tb_get32(f->payload) : 0;
}

/* A reader over a method's arguments that cannot run off the end: a short read sets bad and yields zeroes. */
struct tb_args {
	const uint8_t *at;
	size_t left;
	bool bad;
};

struct tb_args tb_args_of(const struct tb_frame *f);
uint8_t tb_args8(struct tb_args *a);
uint16_t tb_args16(struct tb_args *a);
uint32_t tb_args32(struct tb_args *a);
uint64_t tb_args64(struct tb_args *a);
/* Copies a short (or long) string into a terminated buffer, cut to size. */
void tb_args_shortstr(struct tb_args *a, char *out, size_t size);
void tb_args_longstr(struct tb_args *a, char *out, size_t size);
/* Looks a string field up in the top level of a table and skips the table; out is "" when it is not there. */
void tb_table_find_text(const uint8_t *table, size_t length, const char *name, char *out, size_t size);
/* Lends a table (or long string) and skips it. */
const uint8_t *tb_args_block(struct tb_args *a, size_t *length);

#endif
