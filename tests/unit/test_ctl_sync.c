/*
 * test_ctl_sync.c - the RIB rebuilt from a worker's dump and from the store.
 *
 * Owns: nothing.
 * Core: a cmocka program; the RIB with a fake emitter and store.
 * Spec: DESIGN section 5: transient definitions come from the dataplane, durable ones from the store, and the two are reconciled.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/ctl_rib_kit.h"

static const struct ctl_rib_limits limits = {32, 16, 64, 64};
static struct kit a, b;

static void request(struct kit *k, uint64_t conn, uint16_t kind, uint32_t flags, const char *s0, const char *s1, const char *s2)
{
	struct amqp_record q = {
		.kind = kind, .flags = flags, .token = 5, .conn_uid = conn, .str = {kit_text(s0), kit_text(s1), kit_text(s2)}};
	const struct amqp_record *reply;

	ctl_rib_request(&k->rib, 0, &q);
	reply = kit_find(k, AMQP_OP_REPLY);
	assert_non_null(reply);
	assert_int_equal(reply->code, 0);
}

/* What a worker would dump after it had applied everything that `k` emitted. Returns false when it was refused. */
static bool dump(const struct kit *k, struct ctl_rib *into, uint32_t worker)
{
	struct amqp_record end = {.kind = AMQP_REQ_DUMP_END};

	for (unsigned pass = 0; pass < 3; pass++)
		for (size_t i = 0; i < k->out_count; i++) {
			static const uint16_t adds[] = {AMQP_OP_EXCHANGE_ADD, AMQP_OP_QUEUE_ADD, AMQP_OP_BIND_ADD};
			static const uint16_t defs[] = {AMQP_REQ_DEF_EXCHANGE, AMQP_REQ_DEF_QUEUE, AMQP_REQ_DEF_BINDING};
			struct amqp_record rec = k->out[i].rec;

			if (rec.kind != adds[pass])
				continue;
			rec.kind = defs[pass];
			if (!ctl_rib_sync_record(into, worker, &rec))
				return false;
		}
	return ctl_rib_sync_record(into, worker, &end);
}

/* `a` is a control that lived: it attached to an empty worker, whose operations are all kept, and served some requests. */
static int setup(void **state)
{
	struct amqp_record end = {.kind = AMQP_REQ_DUMP_END};

	(void)state;
	kit_init(&a, &limits);
	ctl_rib_sync_begin(&a.rib, 1, &limits);
	assert_true(ctl_rib_sync_record(&a.rib, 0, &end));
	kit_forget(&a);
	ctl_rib_sync_end(&a.rib);
	request(&a, 9, AMQP_REQ_EXCHANGE_DECLARE, AMQP_DEF_DURABLE, "dx", "topic", "");
	request(&a, 9, AMQP_REQ_EXCHANGE_DECLARE, AMQP_DEF_AUTO_DELETE, "tx", "fanout", "");
	request(&a, 9, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_DURABLE, "dq", "", "");
	request(&a, 9, AMQP_REQ_QUEUE_DECLARE, 0, "tq", "", "");
	request(&a, 9, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_EXCLUSIVE, "eq", "", "");
	request(&a, 9, AMQP_REQ_QUEUE_BIND, 0, "dq", "dx", "a.*");
	request(&a, 9, AMQP_REQ_QUEUE_BIND, 0, "tq", "dx", "a.*");
	request(&a, 9, AMQP_REQ_QUEUE_BIND, 0, "tq", "tx", "");
	request(&a, 9, AMQP_REQ_QUEUE_BIND, 0, "eq", "amq.direct", "k");
	request(&a, 9, AMQP_REQ_EXCHANGE_BIND, 0, "dx", "amq.topic", "#");
	kit_init(&b, &limits);
	return 0;
}

static int teardown(void **state)
{
	const char *err = ctl_rib_check(&b.rib);

	(void)state;
	kit_fini(&a);
	kit_fini(&b);
	if (err != NULL)
		print_error("%s\n", err);
	return err != NULL;
}

/* The store of `a`, as a new process would find it. */
static void move_store(void)
{
	for (uint64_t i = 0; i < KIT_STORE_MAX; i++) {
		b.store[i] = a.store[i];
		b.store_len[i] = a.store_len[i];
		a.store[i] = NULL;
	}
	b.store_next = a.store_next;
}

static void same_ids(void)
{
	for (uint32_t i = 0; i < limits.exchanges_max; i++) {
		assert_int_equal(a.rib.exchange[i] != NULL, b.rib.exchange[i] != NULL);
		assert_true(a.rib.exchange[i] == NULL || ctl_span_equal(a.rib.exchange[i]->name, b.rib.exchange[i]->name));
	}
	for (uint32_t i = 0; i < limits.queues_max; i++)
		assert_true((a.rib.queue[i] == NULL) == (b.rib.queue[i] == NULL) &&
			    (a.rib.queue[i] == NULL || ctl_span_equal(a.rib.queue[i]->name, b.rib.queue[i]->name)));
	for (uint32_t i = 0; i < limits.bindings_max; i++) {
		assert_int_equal(a.rib.binding[i] != NULL, b.rib.binding[i] != NULL);
		if (a.rib.binding[i] != NULL && a.rib.binding[i]->rule != NULL)
			assert_int_equal(a.rib.binding[i]->rule->id, b.rib.binding[i]->rule->id);
	}
}

static void a_restarted_control_knows_everything_with_the_ids_as_they_were(void **state)
{
	struct amqp_record conn = {.kind = AMQP_REQ_DEF_CONN, .conn_uid = 9, .str = {kit_text("/"), kit_text("guest")}};

	(void)state;
	ctl_rib_sync_begin(&b.rib, 1, &limits);
	ctl_rib_vhost(&b.rib, kit_text("/"))->configured = true;
	assert_int_equal(kit_count(&b, AMQP_OP_DUMP), 1);
	kit_forget(&b);
	assert_true(ctl_rib_sync_record(&b.rib, 0, &conn));
	assert_true(dump(&a, &b.rib, 0));
	move_store();
	assert_int_equal(kit_restore(&b), 0);
	ctl_rib_sync_end(&b.rib);
	assert_int_equal(b.out_count, 0); /* nothing was missing: the worker is not touched */
	same_ids();
	assert_int_equal(kit_stored(&b), 4); /* dx, dq and two bindings, none twice */
	assert_non_null(ctl_rib_conn(&b.rib, 9));
	/* it goes on where the other stopped */
	kit_forget(&b);
	request(&b, 9, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_EXCLUSIVE, "eq", "", "");
	assert_null(kit_find(&b, AMQP_OP_QUEUE_ADD));
}

static void exclusive_queues_whose_connection_went_meanwhile_are_deleted(void **state)
{
	(void)state;
	ctl_rib_sync_begin(&b.rib, 1, &limits);
	kit_forget(&b);
	assert_true(dump(&a, &b.rib, 0));
	move_store();
	kit_restore(&b);
	ctl_rib_sync_end(&b.rib);
	assert_int_equal(kit_count(&b, AMQP_OP_QUEUE_DEL), 1);
	assert_int_equal(kit_count(&b, AMQP_OP_BIND_DEL), 1);
	assert_null(ctl_rib_queue(&b.rib, ctl_rib_vhost_find(&b.rib, kit_text("/")), kit_text("eq")));
}

static void a_restarted_dataplane_gets_the_durable_definitions_and_no_others(void **state)
{
	const struct ctl_vhost *v;

	(void)state;
	ctl_rib_sync_begin(&b.rib, 1, &limits);
	kit_forget(&b);
	assert_true(ctl_rib_sync_record(&b.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_DUMP_END}));
	move_store();
	kit_restore(&b);
	ctl_rib_sync_end(&b.rib);
	assert_int_equal(kit_count(&b, AMQP_OP_EXCHANGE_ADD), 7); /* six that every vhost has, and dx */
	assert_int_equal(kit_count(&b, AMQP_OP_QUEUE_ADD), 1);
	assert_int_equal(kit_count(&b, AMQP_OP_BIND_ADD), 2);
	v = ctl_rib_vhost_find(&b.rib, kit_text("/"));
	assert_non_null(ctl_rib_queue(&b.rib, v, kit_text("dq")));
	assert_null(ctl_rib_queue(&b.rib, v, kit_text("tq")));
	assert_null(ctl_rib_exchange(&b.rib, v, kit_text("tx")));
	/* bindings are programmed after their ends */
	assert_int_equal(b.out[b.out_count - 1].rec.kind, AMQP_OP_BIND_ADD);
}

static void durable_definitions_that_run_but_were_lost_from_the_store_are_stored_again(void **state)
{
	(void)state;
	ctl_rib_sync_begin(&b.rib, 1, &limits);
	assert_true(dump(&a, &b.rib, 0));
	kit_restore(&b); /* an empty store */
	ctl_rib_sync_end(&b.rib);
	assert_int_equal(kit_stored(&b), 4);
}

static void a_second_worker_that_knows_nothing_is_programmed_alone(void **state)
{
	(void)state;
	ctl_rib_sync_begin(&b.rib, 2, &limits);
	kit_forget(&b);
	assert_true(ctl_rib_sync_record(&b.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_DEF_CONN, .conn_uid = 9}));
	assert_true(dump(&a, &b.rib, 0));
	assert_true(ctl_rib_sync_record(&b.rib, 1, &(struct amqp_record){.kind = AMQP_REQ_DUMP_END}));
	move_store();
	kit_restore(&b);
	ctl_rib_sync_end(&b.rib);
	assert_int_equal(kit_count(&b, AMQP_OP_EXCHANGE_ADD), 8);
	assert_int_equal(kit_count(&b, AMQP_OP_QUEUE_ADD), 3);
	assert_int_equal(kit_count(&b, AMQP_OP_BIND_ADD), 5);
	for (size_t i = 0; i < b.out_count; i++)
		assert_int_equal(b.out[i].worker, 1);
}

static void two_workers_that_agree_are_both_left_alone(void **state)
{
	(void)state;
	ctl_rib_sync_begin(&b.rib, 2, &limits);
	kit_forget(&b);
	assert_true(ctl_rib_sync_record(&b.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_DEF_CONN, .conn_uid = 9}));
	assert_true(dump(&a, &b.rib, 0));
	assert_true(dump(&a, &b.rib, 1));
	move_store();
	kit_restore(&b);
	ctl_rib_sync_end(&b.rib);
	assert_int_equal(b.out_count, 0);
}

static void what_the_dataplane_has_no_room_for_stays_in_the_store(void **state)
{
	const struct ctl_rib_limits tiny = {8, 1, 1, 1};

	(void)state;
	request(&a, 9, AMQP_REQ_QUEUE_DECLARE, AMQP_DEF_DURABLE, "dq2", "", "");
	ctl_rib_sync_begin(&b.rib, 1, &tiny);
	assert_true(ctl_rib_sync_record(&b.rib, 0, &(struct amqp_record){.kind = AMQP_REQ_DUMP_END}));
	move_store();
	assert_int_equal(kit_restore(&b), 2); /* the second queue, the second binding */
	ctl_rib_sync_end(&b.rib);
	assert_int_equal(kit_stored(&b), 5);
}

static void refused(struct amqp_record rec)
{
	struct ctl_rib *r = &b.rib;

	ctl_rib_sync_begin(r, 1, &limits);
	assert_true(ctl_rib_sync_record(r, 0,
					&(struct amqp_record){.kind = AMQP_REQ_DEF_EXCHANGE,
							      .id = 1,
							      .id2 = 0,
							      .code = AMQP_TOPIC,
							      .str = {kit_text("x"), kit_text("/")}}));
	assert_true(ctl_rib_sync_record(
		r, 0, &(struct amqp_record){.kind = AMQP_REQ_DEF_QUEUE, .id = 1, .id2 = 0, .str = {kit_text("q"), kit_text("/")}}));
	assert_true(ctl_rib_sync_record(
		r, 0,
		&(struct amqp_record){
			.kind = AMQP_REQ_DEF_BINDING, .id = 1, .id2 = 1, .id3 = 1, .id4 = 1, .str = {kit_text("k")}}));
	assert_false(ctl_rib_sync_record(r, 0, &rec));
	assert_non_null(r->sync_error);
	assert_null(ctl_rib_check(r));
}

static void a_dump_that_contradicts_itself_is_refused(void **state)
{
	static const uint8_t bad_table[] = "\1aZ";

	(void)state;
	/* the same name, the same id, an id out of range, an unknown type, two names for one vhost */
	refused((struct amqp_record){
		.kind = AMQP_REQ_DEF_EXCHANGE, .id = 1, .code = AMQP_TOPIC, .str = {kit_text("x"), kit_text("/")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_EXCHANGE, .id = 1, .str = {kit_text("y"), kit_text("/")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_EXCHANGE, .id = 32, .str = {kit_text("y"), kit_text("/")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_EXCHANGE, .id = 2, .code = 4, .str = {kit_text("y"), kit_text("/")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_EXCHANGE, .id = 2, .str = {kit_text("y"), kit_text("other")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_EXCHANGE, .id = 2, .id2 = 3, .str = {kit_text("y"), kit_text("/")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_QUEUE, .id = 1, .str = {kit_text("p"), kit_text("/")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_QUEUE, .id = 2, .str = {kit_text("\xff"), kit_text("/")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_QUEUE,
				     .id = 2,
				     .str = {kit_text("p"), kit_text("/")},
				     .blob = {bad_table, sizeof bad_table - 1}});
	/* bindings from and to nothing, with another rule's id, without a rule */
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_BINDING, .id = 2, .id2 = 2, .id3 = 1, .id4 = 2, .str = {kit_text("j")}});
	refused((struct amqp_record){
		.kind = AMQP_REQ_DEF_BINDING, .id = 2, .id2 = 1, .id3 = UINT32_MAX, .id4 = 2, .str = {kit_text("j")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_BINDING, .id = 2, .id2 = 1, .id3 = 1, .id4 = 1, .str = {kit_text("j")}});
	refused((struct amqp_record){
		.kind = AMQP_REQ_DEF_BINDING, .id = 2, .id2 = 1, .id3 = 1, .id4 = AMQP_ID_NONE, .str = {kit_text("j")}});
	refused((struct amqp_record){.kind = AMQP_REQ_DEF_BINDING, .id = 1, .id2 = 1, .id3 = 1, .id4 = 2, .str = {kit_text("j")}});
	refused((struct amqp_record){.kind = AMQP_REQ_LOGIN});
}

static void a_definition_after_the_end_of_its_dump_is_refused(void **state)
{
	struct amqp_record end = {.kind = AMQP_REQ_DUMP_END};

	(void)state;
	ctl_rib_sync_begin(&b.rib, 2, &limits);
	assert_true(ctl_rib_sync_record(&b.rib, 0, &end));
	assert_false(ctl_rib_sync_record(&b.rib, 0, &end));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_restarted_control_knows_everything_with_the_ids_as_they_were),
		T(exclusive_queues_whose_connection_went_meanwhile_are_deleted),
		T(a_restarted_dataplane_gets_the_durable_definitions_and_no_others),
		T(durable_definitions_that_run_but_were_lost_from_the_store_are_stored_again),
		T(a_second_worker_that_knows_nothing_is_programmed_alone),
		T(two_workers_that_agree_are_both_left_alone),
		T(what_the_dataplane_has_no_room_for_stays_in_the_store),
		T(a_dump_that_contradicts_itself_is_refused),
		T(a_definition_after_the_end_of_its_dump_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
