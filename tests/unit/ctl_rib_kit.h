/*
 * ctl_rib_kit.h - a RIB with a fake emitter and a fake store, for tests.
 *
 * Owns: the records that the RIB emitted and the definitions that it stored, copied.
 * Core: cmocka programs and fuzzers.
 * Spec: control/rib.h.
 */
#ifndef TICKWIRE_CTL_RIB_KIT_H
#define TICKWIRE_CTL_RIB_KIT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/ctl_shm.h"
#include "control/rib.h"

#define KIT_OUT_MAX   4096
#define KIT_STORE_MAX 512

struct kit_record {
	uint32_t worker;
	struct amqp_record rec;
	uint8_t *bytes;
};
struct kit {
	struct ctl_rib rib;
	struct kit_record out[KIT_OUT_MAX];
	size_t out_count, dropped;
	uint8_t *store[KIT_STORE_MAX]; /* index: store id */
	size_t store_len[KIT_STORE_MAX];
	uint64_t store_next;
	bool store_fails;
	unsigned rules_changed, exchanges_gone;
	uint8_t random_next;
};

static inline void kit_emit(void *ctx, uint32_t worker, const struct amqp_record *rec)
{
	struct kit *k = ctx;
	size_t len = ctl_record_bytes(rec);
	struct kit_record *r = &k->out[k->out_count];

	if (k->out_count == KIT_OUT_MAX || len == 0) {
		k->dropped++;
		return;
	}
	r->worker = worker;
	r->bytes = malloc(len);
	if (r->bytes == NULL || ctl_record_encode(r->bytes, len, rec) != len || !ctl_record_decode(r->bytes, len, &r->rec))
		abort();
	k->out_count++;
}

static inline uint64_t kit_store_put(void *ctx, const struct amqp_record *def)
{
	struct kit *k = ctx;
	size_t len = ctl_record_bytes(def);

	if (k->store_fails || k->store_next == KIT_STORE_MAX - 1 || len == 0)
		return 0;
	k->store_next++;
	k->store[k->store_next] = malloc(len);
	if (k->store[k->store_next] == NULL)
		abort();
	k->store_len[k->store_next] = ctl_record_encode(k->store[k->store_next], len, def);
	return k->store_next;
}

static inline bool kit_store_del(void *ctx, uint64_t id)
{
	struct kit *k = ctx;

	if (id >= KIT_STORE_MAX || k->store[id] == NULL)
		return false;
	free(k->store[id]);
	k->store[id] = NULL;
	return true;
}

static inline void kit_rules_changed(void *ctx, struct ctl_exchange *x)
{
	(void)x;
	((struct kit *)ctx)->rules_changed++;
}

static inline void kit_exchange_gone(void *ctx, uint32_t id)
{
	(void)id;
	((struct kit *)ctx)->exchanges_gone++;
}

static inline void kit_random(void *ctx, void *out, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		((uint8_t *)out)[i] = ((struct kit *)ctx)->random_next++;
}

static const struct ctl_rib_ops kit_ops = {kit_emit,          kit_store_put,     kit_store_del,
					   kit_rules_changed, kit_exchange_gone, kit_random};

static inline void kit_forget(struct kit *k)
{
	for (size_t i = 0; i < k->out_count; i++)
		free(k->out[i].bytes);
	k->out_count = 0;
}

static inline struct amqp_span kit_text(const char *s)
{
	return (struct amqp_span){(const uint8_t *)s, (uint32_t)strlen(s)};
}

static inline void kit_init(struct kit *k, const struct ctl_rib_limits *l)
{
	memset(k, 0, sizeof *k);
	ctl_rib_init(&k->rib, &kit_ops, k, l);
	ctl_rib_vhost(&k->rib, kit_text("/"))->configured = true;
}

static inline void kit_fini(struct kit *k)
{
	kit_forget(k);
	ctl_rib_fini(&k->rib);
	for (size_t i = 0; i < KIT_STORE_MAX; i++)
		free(k->store[i]);
}

static inline size_t kit_stored(const struct kit *k)
{
	size_t n = 0;

	for (size_t i = 0; i < KIT_STORE_MAX; i++)
		n += k->store[i] != NULL;
	return n;
}

/* The store's definitions into the RIB, in the order in which control does it. */
static inline unsigned kit_restore(struct kit *k)
{
	static const uint16_t kinds[] = {AMQP_OP_EXCHANGE_ADD, AMQP_OP_QUEUE_ADD, AMQP_OP_BIND_ADD};
	struct amqp_record rec;
	unsigned refused = 0;
	const char *why;

	for (unsigned kind = 0; kind < 3; kind++) {
		if (kind == 2)
			ctl_rib_defaults(&k->rib);
		for (uint64_t i = 1; i < KIT_STORE_MAX; i++)
			if (k->store[i] != NULL && ctl_record_decode(k->store[i], k->store_len[i], &rec) && rec.kind == kinds[kind])
				refused += !ctl_rib_restore(&k->rib, &rec, i, &why);
	}
	return refused;
}

/* Attaches to `workers` empty workers. */
static inline void kit_attach(struct kit *k, uint32_t workers, const struct ctl_rib_limits *l)
{
	struct amqp_record end = {.kind = AMQP_REQ_DUMP_END};

	ctl_rib_sync_begin(&k->rib, workers, l);
	for (uint32_t w = 0; w < workers; w++)
		if (!ctl_rib_sync_record(&k->rib, w, &end))
			abort();
	kit_restore(k);
	ctl_rib_sync_end(&k->rib);
	kit_forget(k);
}

/* The emitted record of that kind, the last one; NULL: there is none. */
static inline const struct amqp_record *kit_find(const struct kit *k, uint16_t kind)
{
	for (size_t i = k->out_count; i-- > 0;)
		if (k->out[i].rec.kind == kind)
			return &k->out[i].rec;
	return NULL;
}

static inline size_t kit_count(const struct kit *k, uint16_t kind)
{
	size_t n = 0;

	for (size_t i = 0; i < k->out_count; i++)
		n += k->out[i].rec.kind == kind;
	return n;
}

#endif
