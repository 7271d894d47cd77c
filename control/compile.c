/*
 * compile.c - schedules, runs and publishes compiles of Hyperscan databases.
 *
 * Owns: one thread, one job at a time, and a state for each exchange.
 * Core: control's event loop; thread_main() is the only function of the other thread.
 * Spec: DESIGN section 6; the messages are those of control/ctl_shm.h.
 */
#include "control/compile.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "control/arena.h"
#include "control/log.h"
#include "control/map.h"
#include "control/rib_int.h"
#include "matcher/matcher.h"

/*
 * An image of a former control that the dataplane does not claim to read is let go so long after attach: it was never published,
 * or its RELEASED was told to nobody.
 */
#define ADOPTED_GRACE_MS 10000u
/* An image that was refused, or could not be told of, is compiled again so much later; twice that the next time. */
#define RETRY_FIRST_MS 1000u
#define RETRY_LAST_MS  30000u

/* The rules that an image names: their ids stay reserved as long as it lives. */
struct held {
	uint64_t offset; /* of the image; UINT64_MAX: it is still being compiled */
	uint32_t *ids;
	uint32_t count;
};

struct job {
	enum match_kind kind;
	struct match_rule *rules;
	size_t count;
	uint32_t exchange_id;
	uint64_t generation, epoch;
	struct held held;
	/* result */
	uint8_t *image;
	size_t image_bytes;
	uint64_t took_ms;
	char err[256];
};

struct state {
	bool dirty, starved, compiling, in_flight;
	uint64_t since_ms, last_ms; /* of the changes that are waiting */
	bool again;                 /* the last image failed; the next tick says when it is tried again */
	uint64_t retry_ms, not_before_ms;
	uint64_t flight_generation, flight_offset, flight_bytes, flight_ms;
	uint32_t flight_rules;
	struct ctl_compiler_info now;
	char trouble[160];
};

struct ctl_compiler {
	struct ctl_rib *rib;
	struct ctl_compiler_options options;
	bool (*publish)(void *ctx, const struct ctl_msg *msg);
	void *ctx;
	struct ctl_arena arena;
	struct held *held; /* one for each image of the arena */
	uint32_t held_count, held_cap;
	struct state **state; /* by exchange id, `states_max` of them */
	uint32_t states_max;
	uint64_t generation, epoch; /* epoch: grows at attach and detach, so that an old job's result is known as such */
	uint64_t sweep_at_ms;       /* 0: nothing is left of a former control */
	int done_fd;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;
	struct job *todo, *done;
	bool busy; /* event loop only: a job is with the thread */
};

static void job_free(struct job *j)
{
	for (size_t i = 0; i < j->count; i++)
		free((void *)(uintptr_t)j->rules[i].key);
	free(j->rules);
	free(j->held.ids);
	free(j->image);
	free(j);
}

static uint64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void *thread_main(void *arg)
{
	struct ctl_compiler *c = arg;

	for (;;) {
		struct job *j;
		uint64_t began, one = 1;

		pthread_mutex_lock(&c->lock);
		while (c->todo == NULL)
			pthread_cond_wait(&c->wake, &c->lock);
		j = c->todo;
		c->todo = NULL;
		pthread_mutex_unlock(&c->lock);

		began = clock_ms();
		j->image = match_compile(j->kind, j->rules, j->count, j->generation, &j->image_bytes, j->err, sizeof j->err);
		j->took_ms = clock_ms() - began;

		pthread_mutex_lock(&c->lock);
		c->done = j;
		pthread_mutex_unlock(&c->lock);
		if (write(c->done_fd, &one, sizeof one) < 0)
			ctl_log(CTL_LOG_ERROR, "the end of a compile could not be told");
	}
	return NULL;
}

struct ctl_compiler *ctl_compiler_new(struct ctl_rib *rib, const struct ctl_compiler_options *options,
				      bool (*publish)(void *ctx, const struct ctl_msg *msg), void *ctx)
{
	struct ctl_compiler *c = ctl_alloc(sizeof *c);
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	c->rib = rib;
	c->options = *options;
	c->publish = publish;
	c->ctx = ctx;
	c->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->wake, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = c->done_fd < 0 ? -1 : pthread_create(&thread, &attr, thread_main, c);
	pthread_attr_destroy(&attr);
	if (rc == 0)
		return c;
	ctl_log(CTL_LOG_ERROR, "the compile thread cannot be started");
	free(c);
	return NULL;
}

static void held_drop(struct held *h)
{
	free(h->ids);
	memset(h, 0, sizeof *h);
}

static struct state *state_of(struct ctl_compiler *c, uint32_t id)
{
	if (id >= c->states_max) {
		uint32_t max = c->states_max != 0 ? c->states_max : 64;

		while (max <= id)
			max *= 2;
		c->state = ctl_resize(c->state, max * sizeof c->state[0]);
		memset(c->state + c->states_max, 0, (max - c->states_max) * sizeof c->state[0]);
		c->states_max = max;
	}
	if (c->state[id] == NULL)
		c->state[id] = ctl_alloc(sizeof *c->state[id]);
	return c->state[id];
}

static void forget_states(struct ctl_compiler *c)
{
	for (uint32_t i = 0; i < c->states_max; i++) {
		free(c->state[i]);
		c->state[i] = NULL;
	}
}

void ctl_compiler_detach(struct ctl_compiler *c)
{
	c->epoch++;
	for (uint32_t i = 0; i < c->held_count; i++)
		held_drop(&c->held[i]);
	c->held_count = 0;
	forget_states(c);
	ctl_arena_detach(&c->arena);
}

void ctl_compiler_free(struct ctl_compiler *c)
{
	ctl_compiler_detach(c);
	/* The thread may still be compiling and will touch c: when a job is with it, its memory is left to the process's end. */
	free(c->held);
	free(c->state);
	c->held = NULL;
	c->state = NULL;
	c->states_max = 0;
}

/* ---- images and the ids that they hold ---- */

static void held_add(struct ctl_compiler *c, const struct held *h)
{
	if (c->held_count == c->held_cap) {
		c->held_cap = c->held_cap != 0 ? 2 * c->held_cap : 16;
		c->held = ctl_resize(c->held, c->held_cap * sizeof c->held[0]);
	}
	c->held[c->held_count++] = *h;
}

static void release_ids(struct ctl_compiler *c, struct held *h)
{
	for (uint32_t i = 0; i < h->count; i++)
		ctl_rib_rule_release(c->rib, h->ids[i]);
	held_drop(h);
}

static void release_image(struct ctl_compiler *c, uint64_t offset)
{
	ctl_arena_free(&c->arena, offset);
	for (uint32_t i = 0; i < c->held_count; i++)
		if (c->held[i].offset == offset) {
			release_ids(c, &c->held[i]);
			c->held[i] = c->held[--c->held_count];
			break;
		}
	/* There is room now for those that found none. */
	for (uint32_t i = 0; i < c->states_max; i++)
		if (c->state[i] != NULL && c->state[i]->starved) {
			c->state[i]->starved = false;
			c->state[i]->dirty = true;
		}
}

static bool names_all_patterns(const struct ctl_compiler *c, const struct ctl_exchange *x, const struct held *h)
{
	uint32_t live = 0;

	for (uint32_t i = 0; i < h->count; i++) {
		const struct ctl_rule *rule = c->rib->rule[h->ids[i]];

		live += rule != NULL && rule->source == x && rule->bindings_count != 0;
	}
	return live == h->count && live == x->pattern_rules;
}

/* Reads an adopted image's ids. False: it is no image (a former control died while it wrote it). */
static bool adopt_image(struct ctl_compiler *c, const struct ctl_image *img)
{
	struct held h = {.offset = img->offset};
	const uint32_t *ids;
	char err[160];
	struct match_db *db = match_db_open(c->arena.base + img->offset, (size_t)img->bytes, err, sizeof err);
	size_t count;

	if (db == NULL)
		return false;
	count = match_db_rule_ids(db, &ids);
	h.ids = ctl_alloc((count + 1) * sizeof h.ids[0]);
	for (size_t i = 0; i < count; i++)
		if (ctl_rib_rule_adopt(c->rib, ids[i]))
			h.ids[h.count++] = ids[i];
	match_db_close(db);
	held_add(c, &h);
	return true;
}

static void consider_adopted(struct ctl_compiler *c, const struct ctl_image *img, uint64_t now_ms)
{
	const struct ctl_exchange *x = img->exchange_id < c->rib->limits.exchanges_max ? c->rib->exchange[img->exchange_id] : NULL;
	bool newest = true, only = true;
	struct state *s = state_of(c, img->exchange_id);

	if (x == NULL)
		return;
	for (uint32_t i = 0; i < c->arena.count; i++)
		if (c->arena.images[i].exchange_id == img->exchange_id && &c->arena.images[i] != img) {
			only = false;
			newest &= c->arena.images[i].generation < img->generation;
		}
	if (!newest)
		return;
	for (uint32_t i = 0; i < c->held_count; i++)
		if (c->held[i].offset == img->offset && only && names_all_patterns(c, x, &c->held[i])) {
			s->dirty = false;
			s->now.generation = img->generation;
			s->now.bytes = img->bytes;
			s->now.rules = c->held[i].count;
			return;
		}
	ctl_compiler_changed(c, img->exchange_id, now_ms);
}

void ctl_compiler_attach(struct ctl_compiler *c, uint8_t *arena, uint64_t bytes, uint64_t now_ms)
{
	c->epoch++;
	ctl_arena_attach(&c->arena, arena, bytes);
	for (uint32_t i = 0; i < c->arena.count;) {
		struct ctl_image *img = &c->arena.images[i];

		if (img->generation >= c->generation)
			c->generation = img->generation;
		if (img->exchange_id < c->rib->limits.exchanges_max && adopt_image(c, img))
			i++;
		else
			ctl_arena_free(&c->arena, img->offset);
	}
	for (uint32_t i = 0; i < c->arena.count; i++)
		consider_adopted(c, &c->arena.images[i], now_ms);
	c->sweep_at_ms = c->arena.count != 0 ? now_ms + ADOPTED_GRACE_MS : 0;
}

/* ---- scheduling ---- */

void ctl_compiler_changed(struct ctl_compiler *c, uint32_t exchange_id, uint64_t now_ms)
{
	struct state *s = state_of(c, exchange_id);

	if (!s->dirty)
		s->since_ms = now_ms;
	s->dirty = true;
	s->again = false; /* other rules, another image */
	s->not_before_ms = 0;
	s->last_ms = now_ms;
}

void ctl_compiler_exchange_gone(struct ctl_compiler *c, uint32_t exchange_id)
{
	if (exchange_id >= c->states_max || c->state[exchange_id] == NULL)
		return;
	/* The images stay until the dataplane releases them; a job that runs finds that its exchange is another one. */
	free(c->state[exchange_id]);
	c->state[exchange_id] = NULL;
}

static struct job *snapshot(struct ctl_compiler *c, const struct ctl_exchange *x)
{
	struct job *j = ctl_alloc(sizeof *j);
	const struct ctl_rib *r = c->rib;

	j->kind = x->type == AMQP_TOPIC ? MATCH_TOPIC : MATCH_HEADERS;
	j->exchange_id = x->id;
	j->epoch = c->epoch;
	j->generation = ++c->generation;
	j->rules = ctl_alloc(x->pattern_rules * sizeof j->rules[0]);
	j->held.offset = UINT64_MAX;
	j->held.ids = ctl_alloc(x->pattern_rules * sizeof j->held.ids[0]);
	for (uint32_t i = 0; i < r->limits.rules_max && j->count < x->pattern_rules; i++) {
		const struct ctl_rule *rule = r->rule[i];
		struct amqp_span key;

		if (rule == NULL || rule->source != x || rule->bindings_count == 0 || !ctl_rule_is_pattern(x->type, rule->key))
			continue;
		key = ctl_span_dup(rule->key);
		j->rules[j->count] = (struct match_rule){rule->id, key.ptr, key.len};
		j->held.ids[j->count++] = rule->id;
		ctl_rib_rule_hold(c->rib, rule->id);
	}
	j->held.count = (uint32_t)j->count;
	return j;
}

static void begin_job(struct ctl_compiler *c, struct state *s, const struct ctl_exchange *x)
{
	struct job *j = snapshot(c, x);

	s->dirty = false;
	s->compiling = true;
	c->busy = true;
	pthread_mutex_lock(&c->lock);
	c->todo = j;
	pthread_cond_signal(&c->wake);
	pthread_mutex_unlock(&c->lock);
}

static uint64_t due_at(const struct ctl_compiler *c, const struct state *s)
{
	uint64_t settled = s->last_ms + c->options.settle_ms, latest = s->since_ms + c->options.wait_max_ms;

	settled = settled < latest ? settled : latest;
	return settled > s->not_before_ms ? settled : s->not_before_ms;
}

/* The paces of tries that fail: a compile costs the processor that clients' requests want as well. */
static void try_later(struct state *s, uint64_t now_ms)
{
	uint64_t ms = s->retry_ms != 0 ? s->retry_ms : RETRY_FIRST_MS;

	s->again = false;
	s->not_before_ms = now_ms + ms;
	s->retry_ms = 2 * ms < RETRY_LAST_MS ? 2 * ms : RETRY_LAST_MS;
}

static void sweep(struct ctl_compiler *c, uint64_t now_ms)
{
	c->sweep_at_ms = 0;
	for (uint32_t i = 0; i < c->arena.count;) {
		const struct ctl_image *img = &c->arena.images[i];

		if (!img->adopted || img->taken) {
			i++;
			continue;
		}
		ctl_compiler_changed(c, img->exchange_id, now_ms);
		memset(&c->state[img->exchange_id]->now, 0, sizeof c->state[0]->now);
		release_image(c, img->offset);
	}
}

uint64_t ctl_compiler_tick(struct ctl_compiler *c, uint64_t now_ms)
{
	uint64_t next = UINT64_MAX;

	if (c->arena.base == NULL)
		return next;
	if (c->sweep_at_ms != 0 && c->sweep_at_ms <= now_ms)
		sweep(c, now_ms);
	if (c->sweep_at_ms != 0)
		next = c->sweep_at_ms;
	for (uint32_t i = 0; i < c->states_max; i++) {
		struct state *s = c->state[i];
		const struct ctl_exchange *x = i < c->rib->limits.exchanges_max ? c->rib->exchange[i] : NULL;
		uint64_t at;

		if (s == NULL)
			continue;
		if (!s->dirty || s->compiling || s->in_flight || x == NULL)
			continue;
		if (x->pattern_rules == 0 || x->pattern_rules < c->options.min_rules) {
			s->dirty = false;
			continue;
		}
		if (s->again)
			try_later(s, now_ms);
		at = due_at(c, s);
		if (at <= now_ms && !c->busy)
			begin_job(c, s, x);
		else if (at > now_ms && at < next)
			next = at;
	}
	return next == UINT64_MAX ? next : next > now_ms ? next - now_ms : 0;
}

/* ---- results ---- */

static void trouble(struct state *s, const struct ctl_exchange *x, const char *what, const char *why)
{
	snprintf(s->trouble, sizeof s->trouble, "%s: %.120s", what, why);
	ctl_log(CTL_LOG_WARNING, "exchange '%.*s': %s; its overlay goes on", CTL_SPAN_ARG(x->name), s->trouble);
}

/* True: the image is the dataplane's now. */
static bool publish_image(struct ctl_compiler *c, struct state *s, const struct ctl_exchange *x, struct job *j)
{
	struct ctl_msg msg = {
		.kind = CTL_MSG_DB_PUBLISH, .id = j->exchange_id, .generation = j->generation, .bytes = j->image_bytes};
	struct ctl_image *img = ctl_arena_take(&c->arena, j->image_bytes, j->exchange_id, j->generation);

	if (img == NULL) {
		s->starved = true;
		trouble(s, x, "the arena has no room for its database", "give the dataplane more --database-memory");
		return false;
	}
	memcpy(c->arena.base + img->offset, j->image, j->image_bytes);
	msg.offset = img->offset;
	j->held.offset = img->offset;
	if (!c->publish(c->ctx, &msg)) {
		ctl_arena_free(&c->arena, msg.offset);
		s->dirty = s->again = true;
		trouble(s, x, "its database was not published", "the dataplane does not take messages; it is tried again");
		return false;
	}
	s->in_flight = true;
	s->flight_generation = j->generation;
	s->flight_offset = msg.offset;
	s->flight_bytes = j->image_bytes;
	s->flight_ms = j->took_ms;
	s->flight_rules = j->held.count;
	return true;
}

static void job_result(struct ctl_compiler *c, struct job *j)
{
	struct ctl_exchange *x = j->exchange_id < c->rib->limits.exchanges_max ? c->rib->exchange[j->exchange_id] : NULL;
	struct state *s = j->exchange_id < c->states_max ? c->state[j->exchange_id] : NULL;
	bool ours = s != NULL && s->compiling;

	if (j->epoch != c->epoch)
		return; /* the ids that it held went with the RIB of that time */
	if (ours)
		s->compiling = false;
	if (!ours || x == NULL) {
		release_ids(c, &j->held);
		return;
	}
	if (j->image == NULL)
		trouble(s, x, "its database could not be compiled", j->err);
	else if (publish_image(c, s, x, j)) {
		held_add(c, &j->held);
		j->held.ids = NULL;
		j->held.count = 0;
		return;
	}
	release_ids(c, &j->held);
}

int ctl_compiler_fd(const struct ctl_compiler *c)
{
	return c->done_fd;
}

void ctl_compiler_finished(struct ctl_compiler *c)
{
	struct job *j;
	uint64_t n;

	if (read(c->done_fd, &n, sizeof n) < 0)
		return;
	pthread_mutex_lock(&c->lock);
	j = c->done;
	c->done = NULL;
	pthread_mutex_unlock(&c->lock);
	if (j == NULL)
		return;
	c->busy = false;
	job_result(c, j);
	job_free(j);
}

/* ---- what the dataplane says ---- */

/* The dataplane reads an image that the list had lost: control was killed while it wrote the list. */
static struct ctl_image *claim_unknown(struct ctl_compiler *c, const struct ctl_msg *m)
{
	struct ctl_image *img =
		ctl_arena_claim(&c->arena, &(struct ctl_image){m->offset, m->bytes, m->generation, m->id, true, true});

	if (img == NULL)
		return NULL;
	if (m->generation >= c->generation)
		c->generation = m->generation;
	if (adopt_image(c, img))
		return img;
	ctl_arena_free(&c->arena, m->offset);
	return NULL;
}

static bool taken(struct ctl_compiler *c, const struct ctl_msg *m)
{
	struct ctl_image *img = ctl_arena_find(&c->arena, m->offset);
	struct state *s = m->id < c->states_max ? c->state[m->id] : NULL;

	if (img == NULL)
		return claim_unknown(c, m) != NULL;
	if (img->exchange_id != m->id || img->generation != m->generation)
		return false;
	img->taken = true;
	if (s == NULL || !s->in_flight || s->flight_generation != m->generation)
		return true; /* a former control's, or its exchange is gone meanwhile */
	s->in_flight = false;
	s->now.generation = s->flight_generation;
	s->now.bytes = s->flight_bytes;
	s->now.compile_ms = s->flight_ms;
	s->now.rules = s->flight_rules;
	s->retry_ms = 0;
	s->trouble[0] = '\0';
	ctl_log(CTL_LOG_DEBUG, "exchange %u: database generation %llu taken (%u rules, %llu bytes, %llu ms)", m->id,
		(unsigned long long)m->generation, s->now.rules, (unsigned long long)s->now.bytes,
		(unsigned long long)s->now.compile_ms);
	return true;
}

static bool refused(struct ctl_compiler *c, struct state *s, const struct ctl_msg *m)
{
	const struct ctl_image *img = ctl_arena_find(&c->arena, m->offset);

	if (img == NULL || img->exchange_id != m->id || img->generation != m->generation)
		return false;
	if (s != NULL && s->in_flight && s->flight_generation == m->generation) {
		s->in_flight = false;
		s->dirty = s->again = true;
		snprintf(s->trouble, sizeof s->trouble, "the dataplane refused it: %.100s", m->text);
	}
	ctl_log(CTL_LOG_WARNING, "exchange %u: the dataplane refused database generation %llu: %s; the overlay goes on", m->id,
		(unsigned long long)m->generation, m->text);
	release_image(c, m->offset);
	return true;
}

bool ctl_compiler_message(struct ctl_compiler *c, const struct ctl_msg *m)
{
	if (m->kind == CTL_MSG_DB_TAKEN)
		return taken(c, m);
	if (m->kind == CTL_MSG_DB_REFUSED)
		return refused(c, m->id < c->states_max ? c->state[m->id] : NULL, m);
	if (ctl_arena_find(&c->arena, m->offset) == NULL)
		return false;
	release_image(c, m->offset);
	return true;
}

static const struct ctl_image *find_image(const struct ctl_compiler *c, uint64_t offset)
{
	for (uint32_t i = 0; i < c->arena.count; i++)
		if (c->arena.images[i].offset == offset)
			return &c->arena.images[i];
	return NULL;
}

static uint32_t count_bound(const struct ctl_compiler *c, const struct held *h)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < h->count; i++)
		n += c->rib->rule[h->ids[i]] != NULL && c->rib->rule[h->ids[i]]->bindings_count != 0;
	return n;
}

void ctl_compiler_info(const struct ctl_compiler *c, uint32_t exchange_id, struct ctl_compiler_info *out)
{
	const struct state *s = exchange_id < c->states_max ? c->state[exchange_id] : NULL;

	memset(out, 0, sizeof *out);
	out->trouble = "";
	if (s == NULL)
		return;
	*out = s->now;
	out->waiting = s->dirty || s->in_flight;
	out->compiling = s->compiling;
	out->trouble = s->trouble;
	for (uint32_t i = 0; i < c->held_count && s->now.generation != 0; i++) {
		const struct ctl_image *img = find_image(c, c->held[i].offset);

		if (img != NULL && img->exchange_id == exchange_id && img->generation == s->now.generation)
			out->covered = count_bound(c, &c->held[i]);
	}
}

void ctl_compiler_arena(const struct ctl_compiler *c, uint64_t *used, uint64_t *bytes)
{
	*used = ctl_arena_used_bytes(&c->arena);
	*bytes = c->arena.bytes;
}
