/*
 * control.c - puts RIB, store, compiler and link together: records in, definitions stored, operations out.
 *
 * Owns: the order of things: what was asked is stored before anybody is told.
 * Core: control's event loop.
 * Spec: DESIGN section 5; log-in and connection.open of AMQP 0-9-1 section 1.4.
 */
#include "control/control.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/log.h"
#include "control/rib_int.h"

#define DEFERRED_MAX 4096u
#define MESSAGES_MAX 4096u
#define SYNC_MS      30000u

/* While no dataplane has told its limits. */
static const struct ctl_rib_limits offline_limits = {1u << 16, 1u << 18, 1u << 20, 1u << 20};

uint64_t ctl_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- what the RIB calls ---- */

static void rib_emit(void *ctx, uint32_t worker, const struct amqp_record *rec)
{
	ctl_link_emit(&((struct ctl_control *)ctx)->link, worker, rec);
}

static uint64_t rib_store_put(void *ctx, const struct amqp_record *def)
{
	return ctl_store_put(((struct ctl_control *)ctx)->store, def);
}

static bool rib_store_del(void *ctx, uint64_t id)
{
	return ctl_store_del(((struct ctl_control *)ctx)->store, id);
}

static void compile_tick(struct ctl_control *c)
{
	uint64_t ms = ctl_compiler_tick(c->compiler, ctl_now_ms());
	struct timeval tv = {(time_t)(ms / 1000), (suseconds_t)(ms % 1000 * 1000)};

	if (ms != UINT64_MAX)
		event_add(c->compile_timer_ev, &tv);
}

/* The timer may already be set, to an earlier moment (which stays: a stream of changes must not push it away) or a later one. */
static void rib_rules_changed(void *ctx, struct ctl_exchange *x)
{
	struct ctl_control *c = ctx;
	struct timeval settle = {(time_t)(c->options.compile_settle_ms / 1000),
				 (suseconds_t)(c->options.compile_settle_ms % 1000 * 1000)};
	struct timeval set, now, wanted;

	ctl_compiler_changed(c->compiler, x->id, ctl_now_ms());
	event_base_gettimeofday_cached(c->base, &now);
	evutil_timeradd(&now, &settle, &wanted);
	if (!event_pending(c->compile_timer_ev, EV_TIMEOUT, &set) || evutil_timercmp(&set, &wanted, >))
		event_add(c->compile_timer_ev, &settle);
}

static void rib_exchange_gone(void *ctx, uint32_t exchange_id)
{
	ctl_compiler_exchange_gone(((struct ctl_control *)ctx)->compiler, exchange_id);
}

static void rib_random(void *ctx, void *out, size_t bytes)
{
	(void)ctx;
	if (!ctl_random(out, bytes)) {
		ctl_log(CTL_LOG_ERROR, "the system gives no random octets");
		abort();
	}
}

static const struct ctl_rib_ops rib_ops = {
	.emit = rib_emit,
	.store_put = rib_store_put,
	.store_del = rib_store_del,
	.rules_changed = rib_rules_changed,
	.exchange_gone = rib_exchange_gone,
	.random = rib_random,
};

/* ---- log-ins ---- */

static void login(struct ctl_control *c, uint32_t worker, const struct amqp_record *q)
{
	struct amqp_span claimed, mechanism = q->str[0];
	const char *why = "";
	const struct ctl_user *u = ctl_users_login(&c->options.users, mechanism, q->blob, &claimed, &why);

	if (u != NULL) {
		c->logins_ok++;
		ctl_rib_reply_ok(&c->rib, worker, q, AMQP_ID_NONE, ctl_span(u->name), 0);
		return;
	}
	c->logins_refused++;
	ctl_log(CTL_LOG_WARNING, "log-in refused: user '%.*s' from %.*s with %.*s: %s", (int)(claimed.len < 64 ? claimed.len : 64),
		(const char *)claimed.ptr, (int)(q->str[1].len < 64 ? q->str[1].len : 64), (const char *)q->str[1].ptr,
		(int)(mechanism.len < 32 ? mechanism.len : 32), (const char *)mechanism.ptr, why);
	ctl_rib_reply(&c->rib, worker, q, 403,
		      "Login was refused using authentication mechanism %.*s. For details see the broker logfile.",
		      (int)(mechanism.len < 32 ? mechanism.len : 32), (const char *)mechanism.ptr);
}

static void open_vhost(struct ctl_control *c, uint32_t worker, const struct amqp_record *q)
{
	struct ctl_vhost *v = ctl_rib_vhost_find(&c->rib, q->str[0]);
	const struct ctl_user *u = ctl_users_find(&c->options.users, q->str[1]);

	if (v == NULL || !v->configured)
		ctl_rib_reply(&c->rib, worker, q, 530, "vhost %.*s not found", CTL_SPAN_ARG(q->str[0]));
	else if (u == NULL || !ctl_user_may_open(u, v->name))
		ctl_rib_reply(&c->rib, worker, q, 530, "access to vhost '%.*s' refused for user '%.*s'", CTL_SPAN_ARG(v->name),
			      CTL_SPAN_ARG(q->str[1]));
	else {
		ctl_rib_conn_add(&c->rib, worker, q->conn_uid, v->name, q->str[1]);
		ctl_rib_reply_ok(&c->rib, worker, q, v->id, v->name, 0);
	}
}

static void handle(struct ctl_control *c, uint32_t worker, const struct amqp_record *rec)
{
	if (rec->kind == AMQP_REQ_LOGIN)
		login(c, worker, rec);
	else if (rec->kind == AMQP_REQ_OPEN)
		open_vhost(c, worker, rec);
	else
		ctl_rib_request(&c->rib, worker, rec);
}

/* ---- definitions from the store ---- */

static void restore_one(void *ctx, const struct amqp_record *def, uint64_t id)
{
	struct ctl_control *c = ctx;
	const char *why;

	if (!ctl_rib_restore(&c->rib, def, id, &why))
		ctl_log(CTL_LOG_WARNING, "stored definition %llu of '%.*s' in vhost '%.*s' is not used: %s", (unsigned long long)id,
			(int)(def->str[0].len < 64 ? def->str[0].len : 64), (const char *)def->str[0].ptr,
			(int)(def->str[1].len < 64 ? def->str[1].len : 64), (const char *)def->str[1].ptr, why);
}

static void name_vhosts(struct ctl_control *c)
{
	struct ctl_vhost *v;

	LIST_FOREACH(v, &c->rib.vhosts, all)
	v->configured = false;
	for (uint32_t i = 0; i < c->options.vhosts_count; i++)
		ctl_rib_vhost(&c->rib, ctl_span(c->options.vhost[i]))->configured = true;
}

/* Bindings come last: they lean on exchanges and queues, and on the exchanges that every vhost has. */
static void restore_all(struct ctl_control *c)
{
	ctl_store_each(c->store, AMQP_OP_EXCHANGE_ADD, restore_one, c);
	ctl_store_each(c->store, AMQP_OP_QUEUE_ADD, restore_one, c);
	ctl_rib_defaults(&c->rib);
	ctl_store_each(c->store, AMQP_OP_BIND_ADD, restore_one, c);
}

static bool load_offline(struct ctl_control *c)
{
	ctl_rib_reset(&c->rib, &offline_limits);
	name_vhosts(c);
	restore_all(c);
	return ctl_store_commit(c->store);
}

/* ---- synchronising with the dataplane ---- */

static void forget_deferred(struct ctl_control *c)
{
	for (uint32_t i = 0; i < c->deferred_count; i++)
		free(c->deferred[i].bytes);
	c->deferred_count = 0;
	c->messages_count = 0;
}

static bool defer(struct ctl_control *c, uint32_t worker, const struct amqp_record *rec)
{
	size_t len = ctl_record_bytes(rec);
	struct ctl_deferred *d;

	if (c->deferred_count == DEFERRED_MAX)
		return false;
	if (c->deferred_count == c->deferred_cap) {
		c->deferred_cap = c->deferred_cap != 0 ? 2 * c->deferred_cap : 16;
		c->deferred = ctl_resize(c->deferred, c->deferred_cap * sizeof c->deferred[0]);
	}
	d = &c->deferred[c->deferred_count++];
	*d = (struct ctl_deferred){worker, ctl_alloc(len), len};
	ctl_record_encode(d->bytes, len, rec);
	return true;
}

static void replay_deferred(struct ctl_control *c)
{
	struct amqp_record rec;

	for (uint32_t i = 0; i < c->deferred_count; i++)
		if (ctl_record_decode(c->deferred[i].bytes, c->deferred[i].len, &rec))
			handle(c, c->deferred[i].worker, &rec);
}

static bool sync_done(struct ctl_control *c, const char **why)
{
	const struct ctl_shm_header *shm = &c->link.shm;
	bool known = c->boot_id == shm->boot_id;

	/* Which images are in use was told right behind the greeting: it is heard before ids are given to anything new. */
	ctl_link_read_messages(&c->link);
	if (c->link.doomed != NULL)
		return false;
	event_del(c->sync_timer_ev);
	ctl_compiler_attach(c->compiler, c->link.map + shm->arena_offset, shm->arena_bytes, ctl_now_ms());
	for (uint32_t i = 0; i < c->messages_count; i++)
		if (!ctl_compiler_message(c->compiler, &c->messages[i])) {
			*why = "it tells of a database that was never published";
			return false;
		}
	restore_all(c);
	ctl_rib_sync_end(&c->rib);
	replay_deferred(c);
	forget_deferred(c);
	c->boot_id = shm->boot_id;
	ctl_link_steady(&c->link);
	ctl_log(CTL_LOG_INFO, "dataplane: attached (pid %u, %s, %s): %u exchanges, %u queues, %u bindings, %zu connections",
		shm->pid, shm->version_text, known ? "the one known before" : "new to this process", c->rib.exchange_ids.used,
		c->rib.queue_ids.used, c->rib.binding_ids.used, c->rib.conns_by_uid.count);
	compile_tick(c);
	return true;
}

static bool is_definition(const struct amqp_record *rec)
{
	return rec->kind >= AMQP_REQ_DEF_EXCHANGE && rec->kind <= AMQP_REQ_DUMP_END;
}

static bool on_record(void *ctx, uint32_t worker, const struct amqp_record *rec, const char **why)
{
	struct ctl_control *c = ctx;

	if (is_definition(rec)) {
		if (!ctl_rib_sync_record(&c->rib, worker, rec)) {
			*why = c->rib.sync_error;
			return false;
		}
		return c->rib.dumps_open != 0 || sync_done(c, why);
	}
	if (c->rib.syncing) {
		*why = "too much came in the middle of its dump";
		return defer(c, worker, rec);
	}
	handle(c, worker, rec);
	return true;
}

static bool on_wants(void *ctx, uint32_t worker)
{
	const struct ctl_control *c = ctx;

	return !c->rib.syncing || (c->rib.dumps_open & 1u << worker) != 0;
}

static void on_attached(void *ctx)
{
	struct ctl_control *c = ctx;
	const struct ctl_shm_header *shm = &c->link.shm;
	struct ctl_rib_limits limits = {shm->exchanges_max, shm->queues_max, shm->bindings_max, shm->rules_max};

	forget_deferred(c);
	ctl_compiler_detach(c->compiler);
	ctl_rib_sync_begin(&c->rib, shm->workers_count, &limits);
	name_vhosts(c);
	event_add(c->sync_timer_ev, &(struct timeval){SYNC_MS / 1000, 0});
}

static void on_detached(void *ctx)
{
	struct ctl_control *c = ctx;

	event_del(c->sync_timer_ev);
	forget_deferred(c);
	ctl_compiler_detach(c->compiler);
	ctl_store_abort(c->store);
	load_offline(c);
}

static bool on_commit(void *ctx)
{
	struct ctl_control *c = ctx;

	c->batches++;
	return ctl_store_commit(c->store);
}

static void on_settled(void *ctx)
{
	ctl_rib_settle(&((struct ctl_control *)ctx)->rib);
}

static bool on_message(void *ctx, const struct ctl_msg *msg)
{
	struct ctl_control *c = ctx;
	bool ok;

	if (c->rib.syncing) {
		if (c->messages == NULL)
			c->messages = ctl_alloc(MESSAGES_MAX * sizeof c->messages[0]);
		if (c->messages_count == MESSAGES_MAX)
			return false;
		c->messages[c->messages_count++] = *msg;
		return true;
	}
	ok = ctl_compiler_message(c->compiler, msg);
	compile_tick(c);
	return ok;
}

static const struct ctl_link_ops link_ops = {
	.attached = on_attached,
	.detached = on_detached,
	.record = on_record,
	.wants = on_wants,
	.commit = on_commit,
	.settled = on_settled,
	.message = on_message,
};

/* ---- events ---- */

static void on_compiled(evutil_socket_t fd, short what, void *arg)
{
	struct ctl_control *c = arg;

	(void)fd;
	(void)what;
	ctl_compiler_finished(c->compiler);
	compile_tick(c);
}

static void on_compile_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	compile_tick(arg);
}

static void on_sync_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	ctl_link_drop(&((struct ctl_control *)arg)->link, "it did not finish its dump in time");
}

static bool publish(void *ctx, const struct ctl_msg *msg)
{
	return ctl_link_send(&((struct ctl_control *)ctx)->link, msg);
}

/* ---- the whole ---- */

bool ctl_control_attached(const struct ctl_control *c)
{
	return c->link.state == CTL_LINK_UP && !c->rib.syncing;
}

bool ctl_control_commit(struct ctl_control *c)
{
	if (!ctl_store_commit(c->store)) {
		ctl_link_drop(&c->link, "definitions could not be written to the disk");
		return false;
	}
	ctl_link_flush(&c->link);
	return true;
}

void ctl_control_reload(struct ctl_control *c)
{
	struct ctl_options fresh;
	char err[1024];

	if (!ctl_options_load(&fresh, c->config_path, err, sizeof err)) {
		ctl_log(CTL_LOG_ERROR, "reload refused, nothing was changed: %s", err);
		return;
	}
	ctl_users_free(&c->options.users);
	free(c->options.vhost);
	c->options.users = fresh.users;
	c->options.vhost = fresh.vhost;
	c->options.vhosts_count = fresh.vhosts_count;
	c->options.log_level = fresh.log_level;
	ctl_log_set_level((enum ctl_log_level)fresh.log_level);
	if (!ctl_log_open(c->options.log_file)) /* anew, for whoever rotated it */
		ctl_log(CTL_LOG_ERROR, "log_file %s cannot be opened again; the old one goes on", c->options.log_file);
	name_vhosts(c);
	if (!c->rib.syncing)
		ctl_rib_defaults(&c->rib);
	ctl_control_commit(c);
	ctl_log(CTL_LOG_INFO, "reloaded: %u users, %u vhosts; other keys take effect at the next start", fresh.users.count,
		fresh.vhosts_count);
}

bool ctl_control_init(struct ctl_control *c, struct event_base *base, char *err, size_t err_bytes)
{
	struct ctl_compiler_options compile = {c->options.hyperscan_min_rules, c->options.compile_settle_ms,
					       c->options.compile_wait_max_ms};

	c->base = base;
	c->started_s = (uint64_t)time(NULL);
	c->store = ctl_store_open(c->options.data_dir, c->options.store_bytes, c->options.store_sync, err, err_bytes);
	if (c->store == NULL)
		return false;
	c->compile_timer_ev = event_new(base, -1, 0, on_compile_timer, c);
	c->sync_timer_ev = event_new(base, -1, 0, on_sync_late, c);
	c->compiler = ctl_compiler_new(&c->rib, &compile, publish, c);
	if (c->compiler == NULL || c->compile_timer_ev == NULL || c->sync_timer_ev == NULL) {
		snprintf(err, err_bytes, "threads or events cannot be made");
		return false;
	}
	c->compile_fd_ev = event_new(base, ctl_compiler_fd(c->compiler), EV_READ | EV_PERSIST, on_compiled, c);
	if (c->compile_fd_ev == NULL || event_add(c->compile_fd_ev, NULL) != 0) {
		snprintf(err, err_bytes, "events cannot be made");
		return false;
	}
	ctl_link_init(&c->link, base, c->options.dataplane_socket, &link_ops, c);
	ctl_rib_init(&c->rib, &rib_ops, c, &offline_limits);
	if (!load_offline(c)) {
		snprintf(err, err_bytes, "the definitions in %s cannot be written", c->options.data_dir);
		return false;
	}
	return true;
}

void ctl_control_start(struct ctl_control *c)
{
	ctl_link_start(&c->link);
}

void ctl_control_fini(struct ctl_control *c)
{
	event_free(c->compile_fd_ev);
	event_free(c->compile_timer_ev);
	event_free(c->sync_timer_ev);
	ctl_link_fini(&c->link);
	forget_deferred(c);
	free(c->deferred);
	free(c->messages);
	ctl_rib_fini(&c->rib);
	ctl_compiler_free(c->compiler);
	ctl_store_close(c->store);
}
