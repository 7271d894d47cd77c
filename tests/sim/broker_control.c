/*
 * broker_control.c - the simulated control process.
 *
 * Owns: struct control.
 * Core: tests only.
 * Spec: see broker_control.h.
 */
#include "tests/sim/broker_control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/ctl_shm.h"
#include "matcher/matcher.h"

static void fifo_init(struct control_fifo *f)
{
	*f = (struct control_fifo){.last = NULL};
	f->last = &f->first;
}

static void fifo_put(struct control *c, struct control_fifo *f, const struct amqp_record *rec)
{
	size_t cap = ctl_record_bytes(rec);
	struct control_record *r = malloc(sizeof *r + cap);

	if (r == NULL)
		abort();
	r->next = NULL;
	r->len = ctl_record_encode(r->bytes, cap, rec);
	if (r->len == 0)
		c->why = "a record could not be encoded in the size that ctl_record_bytes() gave";
	r->at_ns = c->now_ns + net_spread(c->net, 0, c->delay_max_ns);
	if (r->at_ns < f->last_at_ns)
		r->at_ns = f->last_at_ns;
	f->last_at_ns = r->at_ns;
	*f->last = r;
	f->last = &r->next;
	f->count++;
}

static struct control_record *fifo_take(struct control_fifo *f, uint64_t now_ns)
{
	struct control_record *r = f->first;

	if (r == NULL || r->at_ns > now_ns)
		return NULL;
	f->first = r->next;
	if (f->first == NULL)
		f->last = &f->first;
	f->count--;
	return r;
}

static void fifo_clear(struct control_fifo *f)
{
	struct control_record *r;

	while ((r = fifo_take(f, UINT64_MAX)) != NULL)
		free(r);
	fifo_init(f);
}

/* ---- what the RIB calls ---- */

static void emit(void *ctx, uint32_t worker, const struct amqp_record *rec)
{
	struct control *c = ctx;

	fifo_put(c, &c->ops[worker], rec);
}

static uint64_t store_put(void *ctx, const struct amqp_record *def)
{
	(void)ctx;
	(void)def;
	return 1;
}

static bool store_del(void *ctx, uint64_t store_id)
{
	(void)ctx;
	return store_id == 1;
}

static void rules_changed(void *ctx, struct ctl_exchange *x)
{
	(void)ctx;
	(void)x;
}

static void exchange_gone(void *ctx, uint32_t exchange_id)
{
	(void)ctx;
	(void)exchange_id;
}

static void fill_random(void *ctx, void *out, size_t bytes)
{
	struct control *c = ctx;

	for (size_t i = 0; i < bytes; i++)
		((uint8_t *)out)[i] = (uint8_t)net_random(c->net);
}

static const struct ctl_rib_ops rib_ops = {emit, store_put, store_del, rules_changed, exchange_gone, fill_random};

/* ---- databases ---- */

struct image { /* opened by each worker for itself */
	struct match_db *db[AMQP_WORKERS_MAX];
	uint8_t *bytes; /* NULL: the slot is free */
};
/* Databases are looked up by the pointer that comes back; a handful is alive at any time. */
static struct image images[16];
static struct match_scratch *scratch[AMQP_WORKERS_MAX];

static struct match_db *any_db(const struct image *image)
{
	for (uint32_t w = 0; w < AMQP_WORKERS_MAX; w++)
		if (image->db[w] != NULL)
			return image->db[w];
	return NULL;
}

/* Images outlive the control that made them: the rules they name stay reserved, as the arena's list has them reserved. */
static void adopt_images(struct control *c)
{
	const uint32_t *ids;

	for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
		size_t count = any_db(&images[i]) == NULL ? 0 : match_db_rule_ids(any_db(&images[i]), &ids);

		for (size_t k = 0; k < count; k++)
			ctl_rib_rule_adopt(&c->rib, ids[k]);
	}
}

/* ---- life ---- */

void control_init(struct control *c, struct net *net, const struct amqp_limits *limits)
{
	*c = (struct control){.net = net, .ring_max = 64, .delay_max_ns = 1000000};
	c->limits = (struct ctl_rib_limits){limits->exchanges_max, limits->queues_max, limits->bindings_max, limits->rules_max};
	for (uint32_t w = 0; w < AMQP_WORKERS_MAX; w++) {
		fifo_init(&c->requests[w]);
		fifo_init(&c->ops[w]);
	}
}

static void clear_fifos(struct control *c)
{
	for (uint32_t w = 0; w < AMQP_WORKERS_MAX; w++) {
		fifo_clear(&c->requests[w]);
		fifo_clear(&c->ops[w]);
	}
}

void control_fini(struct control *c)
{
	if (c->up)
		ctl_rib_fini(&c->rib);
	clear_fifos(c);
}

void control_start(struct control *c, uint64_t now_ns)
{
	struct amqp_span root = {(const uint8_t *)"/", 1};

	c->now_ns = now_ns;
	c->up = c->syncing = true;
	ctl_rib_init(&c->rib, &rib_ops, c, &c->limits);
	ctl_rib_vhost(&c->rib, root)->configured = true;
	ctl_rib_sync_begin(&c->rib, c->workers_count, &c->limits);
	for (uint32_t w = 0; w < c->workers_count; w++)
		amqp_control_attached(c->broker[w]);
}

void control_kill(struct control *c)
{
	ctl_rib_fini(&c->rib);
	clear_fifos(c);
	c->up = false;
	c->kills++;
	for (uint32_t w = 0; w < c->workers_count; w++)
		amqp_control_gone(c->broker[w]);
}

bool control_request(struct control *c, uint32_t worker, const struct amqp_record *rec)
{
	if (!c->up || c->requests[worker].count >= c->ring_max)
		return false;
	fifo_put(c, &c->requests[worker], rec);
	return true;
}

/* ---- work ---- */

static void answer_login(struct control *c, uint32_t worker, const struct amqp_record *q)
{
	static const uint8_t right[] = "\0guest\0guest";
	struct amqp_record rec = {.kind = AMQP_OP_REPLY, .token = q->token, .conn_uid = q->conn_uid};

	if (q->blob.len != sizeof right - 1 || memcmp(q->blob.ptr, right, sizeof right - 1) != 0)
		rec.code = 403;
	rec.str[1] = (struct amqp_span){(const uint8_t *)"guest", 5};
	emit(c, worker, &rec);
}

static void answer_open(struct control *c, uint32_t worker, const struct amqp_record *q)
{
	struct ctl_vhost *v = ctl_rib_vhost_find(&c->rib, q->str[0]);
	struct amqp_record rec = {.kind = AMQP_OP_REPLY, .token = q->token, .conn_uid = q->conn_uid};

	if (v == NULL) {
		ctl_rib_reply(&c->rib, worker, q, 530, "no such vhost");
		return;
	}
	ctl_rib_conn_add(&c->rib, worker, q->conn_uid, v->name, q->str[1]);
	rec.id = v->id;
	emit(c, worker, &rec);
}

static void handle(struct control *c, uint32_t worker, const struct amqp_record *q)
{
	if (q->kind == AMQP_REQ_OP_FAILED)
		printf("# operation %u failed: %.*s\n", q->id2, (int)q->str[0].len, (const char *)q->str[0].ptr);
	switch (q->kind) {
	case AMQP_REQ_LOGIN:
		answer_login(c, worker, q);
		break;
	case AMQP_REQ_OPEN:
		answer_open(c, worker, q);
		break;
	case AMQP_REQ_DEF_EXCHANGE:
	case AMQP_REQ_DEF_QUEUE:
	case AMQP_REQ_DEF_BINDING:
	case AMQP_REQ_DEF_CONN:
	case AMQP_REQ_DUMP_END:
		if (!ctl_rib_sync_record(&c->rib, worker, q))
			c->why = c->rib.sync_error;
		else if (c->syncing && c->rib.dumps_open == 0) {
			adopt_images(c);
			ctl_rib_sync_end(&c->rib);
			ctl_rib_defaults(&c->rib);
			c->syncing = false;
		}
		break;
	default:
		ctl_rib_request(&c->rib, worker, q);
	}
}

static void step_worker(struct control *c, uint32_t worker)
{
	struct control_record *r;
	struct amqp_record rec;

	/* Whose dump is over asks already; it is heard when all dumps are. */
	while ((!c->syncing || (c->rib.dumps_open & 1u << worker) != 0) &&
	       (r = fifo_take(&c->requests[worker], c->now_ns)) != NULL) {
		if (!ctl_record_decode(r->bytes, r->len, &rec))
			c->why = "a request could not be decoded";
		else
			handle(c, worker, &rec);
		free(r);
	}
	while ((r = fifo_take(&c->ops[worker], c->now_ns)) != NULL) {
		if (!ctl_record_decode(r->bytes, r->len, &rec))
			c->why = "an operation could not be decoded";
		else if (!amqp_apply(c->broker[worker], &rec))
			c->why = "the worker refused an operation";
		free(r);
	}
}

void control_step(struct control *c, uint64_t now_ns)
{
	c->now_ns = now_ns;
	for (uint32_t w = 0; w < c->workers_count; w++)
		step_worker(c, w);
}

static uint64_t first_ns(const struct control_fifo *f)
{
	return f->first != NULL ? f->first->at_ns : UINT64_MAX;
}

uint64_t control_next_ns(const struct control *c)
{
	uint64_t next = UINT64_MAX;

	for (uint32_t w = 0; w < c->workers_count; w++) {
		if (!c->syncing || (c->rib.dumps_open & 1u << w) != 0)
			next = first_ns(&c->requests[w]) < next ? first_ns(&c->requests[w]) : next;
		next = first_ns(&c->ops[w]) < next ? first_ns(&c->ops[w]) : next;
	}
	return next;
}

bool control_quiet(const struct control *c)
{
	return control_next_ns(c) == UINT64_MAX;
}

/* ---- databases: making them ---- */

static void drop_db(struct match_db *db)
{
	if (db == NULL)
		return;
	for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
		for (uint32_t w = 0; w < AMQP_WORKERS_MAX; w++)
			if (images[i].db[w] == db) {
				match_db_close(db);
				images[i].db[w] = NULL;
				break;
			}
		if (any_db(&images[i]) == NULL) {
			free(images[i].bytes);
			images[i].bytes = NULL;
		}
	}
}

/* False: what was compiled cannot be opened. */
static bool give_to_worker(struct control *c, uint32_t w, struct image *image, size_t bytes, uint32_t exchange_id)
{
	struct match_scratch *grown;
	char err[256];

	image->db[w] = match_db_open(image->bytes, bytes, err, sizeof err);
	if (image->db[w] == NULL) {
		fprintf(stderr, "# %s\n", err);
		return false;
	}
	grown = match_scratch_grow(scratch[w], image->db[w]);
	match_scratch_free(amqp_set_scratch(c->broker[w], grown));
	scratch[w] = grown;
	drop_db(amqp_take_db(c->broker[w], exchange_id, image->db[w]));
	return true;
}

void control_compile(struct control *c, const char *exchange)
{
	struct ctl_vhost *v;
	struct ctl_exchange *x;
	struct ctl_binding *b;
	struct match_rule rules[64];
	size_t count = 0, bytes;
	char err[256];
	bool opened = true;
	struct image *slot = NULL;

	if (!c->up || c->syncing)
		return;
	for (size_t i = 0; i < sizeof images / sizeof images[0] && slot == NULL; i++)
		slot = images[i].bytes == NULL ? &images[i] : NULL;
	v = ctl_rib_vhost_find(&c->rib, (struct amqp_span){(const uint8_t *)"/", 1});
	x = v == NULL ? NULL
		      : ctl_rib_exchange(&c->rib, v, (struct amqp_span){(const uint8_t *)exchange, (uint32_t)strlen(exchange)});
	if (x == NULL || slot == NULL)
		return;
	LIST_FOREACH(b, &x->as_source, of_source)
	{
		if (count == sizeof rules / sizeof rules[0] || b->rule == NULL || !ctl_rule_is_pattern(x->type, b->rule->key))
			continue;
		for (size_t i = 0; i <= count; i++) {
			if (i == count) {
				rules[count++] = (struct match_rule){b->rule->id, b->rule->key.ptr, b->rule->key.len};
				break;
			}
			if (rules[i].id == b->rule->id)
				break;
		}
	}
	if (count == 0)
		return;
	slot->bytes = match_compile(x->type == AMQP_TOPIC ? MATCH_TOPIC : MATCH_HEADERS, rules, count, ++c->generation, &bytes, err,
				    sizeof err);
	for (uint32_t w = 0; slot->bytes != NULL && w < c->workers_count && opened; w++)
		opened = give_to_worker(c, w, slot, bytes, x->id);
	if (slot->bytes == NULL || !opened)
		c->why = "a database could not be compiled or opened";
	c->compiled++;
}

void control_forget_databases(void)
{
	for (size_t i = 0; i < sizeof images / sizeof images[0]; i++)
		for (uint32_t w = 0; w < AMQP_WORKERS_MAX; w++)
			drop_db(images[i].db[w]);
	for (uint32_t w = 0; w < AMQP_WORKERS_MAX; w++) {
		match_scratch_free(scratch[w]);
		scratch[w] = NULL;
	}
}
