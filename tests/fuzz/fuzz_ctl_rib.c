/*
 * fuzz_ctl_rib.c - a worker that dumps and asks for anything, in any order.
 *
 * Owns: nothing.
 * Core: libFuzzer, or the replay of the corpus.
 * Spec: control/rib.h: whatever comes, the RIB's maps, lists and ids agree.
 *
 * The input is a list of short records: kind, flags, ids, connection, and up to four strings and a blob chosen from the input.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/log.h"
#include "tests/unit/ctl_rib_kit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct reader {
	const uint8_t *at, *end;
};

static uint8_t octet(struct reader *r)
{
	return r->at < r->end ? *r->at++ : 0;
}

/* Short names, so that the same ones come again; now and then one as long as the input has. */
static struct amqp_span span(struct reader *r)
{
	static const char *const names[] = {"",       "/",     "x",       "y",      "q",  "amq.topic", "amq.headers",
					    "direct", "topic", "headers", "fanout", "a.*"};
	uint8_t which = octet(r);
	size_t left = (size_t)(r->end - r->at), len = which >> 2;
	struct amqp_span s;

	if (which < 2 * sizeof names / sizeof names[0])
		return kit_text(names[which / 2]);
	len = len < left ? len : left;
	s = (struct amqp_span){r->at, (uint32_t)len};
	r->at += len;
	return s;
}

static struct amqp_record next(struct reader *r)
{
	static const uint16_t kinds[] = {
		AMQP_REQ_EXCHANGE_DECLARE, AMQP_REQ_EXCHANGE_DELETE, AMQP_REQ_EXCHANGE_BIND, AMQP_REQ_EXCHANGE_UNBIND,
		AMQP_REQ_QUEUE_DECLARE,    AMQP_REQ_QUEUE_DELETE,    AMQP_REQ_QUEUE_BIND,    AMQP_REQ_QUEUE_UNBIND,
		AMQP_REQ_CONN_GONE,        AMQP_REQ_QUEUE_UNUSED,    AMQP_REQ_OP_FAILED,     AMQP_REQ_DEF_EXCHANGE,
		AMQP_REQ_DEF_QUEUE,        AMQP_REQ_DEF_BINDING,     AMQP_REQ_DEF_CONN,      AMQP_REQ_DUMP_END};
	struct amqp_record rec = {.kind = kinds[octet(r) % 16], .token = 1};
	uint8_t bits = octet(r);

	rec.flags = bits;
	rec.conn_uid = octet(r) % 4;
	rec.id = octet(r) % 12;
	rec.id2 = rec.kind == AMQP_REQ_OP_FAILED ? 64u + octet(r) % 8 : octet(r) % 12;
	rec.id3 = octet(r) % 12;
	rec.id4 = octet(r) % 12;
	rec.code = octet(r) % 5;
	if (rec.kind <= AMQP_REQ_QUEUE_UNBIND)
		rec.id = rec.id > 10 ? rec.id : 0; /* the vhost */
	for (unsigned i = 0; i < AMQP_RECORD_STRS; i++)
		rec.str[i] = span(r);
	if (octet(r) > 200)
		rec.blob = span(r);
	return rec;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct ctl_rib_limits limits = {10, 8, 12, 10};
	static struct kit k;
	struct reader r = {data, data + size};
	const char *err;

	ctl_log_set_level(CTL_LOG_ERROR + 1);
	kit_init(&k, &limits);
	kit_attach(&k, 1, &limits);
	for (unsigned i = 0; i < 200 && r.at < r.end; i++) {
		struct amqp_record rec = next(&r);

		if (octet(&r) == 255) { /* the link is lost and comes back */
			ctl_rib_sync_begin(&k.rib, 2, &limits);
			kit_forget(&k);
		}
		if (rec.kind >= AMQP_REQ_DEF_EXCHANGE && rec.kind <= AMQP_REQ_DUMP_END) {
			ctl_rib_sync_record(&k.rib, octet(&r) % 2, &rec);
			if (k.rib.syncing && k.rib.dumps_open == 0) {
				kit_restore(&k);
				ctl_rib_sync_end(&k.rib);
			}
		} else if (!k.rib.syncing) {
			ctl_rib_request(&k.rib, 0, &rec);
		}
		if (octet(&r) > 128)
			ctl_rib_settle(&k.rib);
		err = ctl_rib_check(&k.rib);
		if (err != NULL) {
			fprintf(stderr, "%s\n", err);
			abort();
		}
		kit_forget(&k);
	}
	kit_fini(&k);
	return 0;
}
