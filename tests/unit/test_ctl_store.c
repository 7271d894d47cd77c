/*
 * test_ctl_store.c - definitions through LMDB and back, and places in the arena.
 *
 * Owns: a temporary directory of its own.
 * Core: a cmocka program.
 * Spec: control/store.h, control/arena.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/arena.h"
#include "control/store.h"

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/ctl_store_XXXXXX");
	return mkdtemp(dir) == NULL;
}

static int drop_dir(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof path, "%s/data.mdb", dir);
	unlink(path);
	snprintf(path, sizeof path, "%s/lock.mdb", dir);
	unlink(path);
	return rmdir(dir);
}

static struct ctl_store *open_store(uint64_t bytes)
{
	char err[256] = "";
	struct ctl_store *s = ctl_store_open(dir, bytes, false, err, sizeof err);

	if (s == NULL)
		fail_msg("%s", err);
	return s;
}

static struct amqp_record queue_def(const char *name)
{
	return (struct amqp_record){.kind = AMQP_OP_QUEUE_ADD,
				    .flags = 2,
				    .str = {{(const uint8_t *)name, (uint32_t)strlen(name)}, {(const uint8_t *)"/", 1}}};
}

struct seen {
	struct ctl_store *store;
	char names[8192];
	uint64_t ids[1024];
	unsigned count;
};

static void note(void *ctx, const struct amqp_record *def, uint64_t id)
{
	struct seen *s = ctx;

	strncat(s->names, (const char *)def->str[0].ptr, def->str[0].len);
	strcat(s->names, ";");
	s->ids[s->count++] = id;
}

static struct seen all(struct ctl_store *s, uint16_t kind)
{
	struct seen seen = {.store = s};

	ctl_store_each(s, kind, note, &seen);
	return seen;
}

static void what_was_committed_is_there_after_a_restart_and_what_was_not_is_not(void **state)
{
	struct amqp_record a = queue_def("a"), b = queue_def("b"), c = queue_def("c");
	struct ctl_store *s = open_store(1 << 20);
	struct seen seen;
	uint64_t id_b;

	(void)state;
	assert_int_not_equal(ctl_store_put(s, &a), 0);
	id_b = ctl_store_put(s, &b);
	assert_true(ctl_store_commit(s));
	assert_true(ctl_store_del(s, id_b));
	assert_true(ctl_store_commit(s));
	assert_int_not_equal(ctl_store_put(s, &c), 0);
	ctl_store_close(s); /* as a process that dies before it commits */
	s = open_store(1 << 20);
	seen = all(s, AMQP_OP_QUEUE_ADD);
	assert_string_equal(seen.names, "a;");
	assert_int_equal(all(s, AMQP_OP_EXCHANGE_ADD).count, 0);
	assert_true(ctl_store_put(s, &c) > seen.ids[0]);
	ctl_store_abort(s);
	assert_int_equal(all(s, AMQP_OP_QUEUE_ADD).count, 1);
	assert_false(ctl_store_del(s, 12345));
	assert_false(ctl_store_del(s, 0)); /* the format's own record */
	ctl_store_close(s);
}

static void delete_each(void *ctx, const struct amqp_record *def, uint64_t id)
{
	struct seen *s = ctx;

	note(ctx, def, id);
	ctl_store_del(s->store, id);
}

static void definitions_may_be_deleted_while_they_are_walked(void **state)
{
	struct ctl_store *s = open_store(1 << 20);
	struct seen seen = {.store = s};
	struct amqp_record def;

	(void)state;
	for (char c = 'a'; c < 'k'; c++) {
		def = queue_def((char[]){c, '\0'});
		ctl_store_put(s, &def);
	}
	ctl_store_each(s, AMQP_OP_QUEUE_ADD, delete_each, &seen);
	assert_string_equal(seen.names, "a;b;c;d;e;f;g;h;i;j;");
	assert_int_equal(all(s, AMQP_OP_QUEUE_ADD).count, 0);
	assert_true(ctl_store_commit(s));
	ctl_store_close(s);
}

static void a_full_store_refuses_and_keeps_what_it_has(void **state)
{
	static uint8_t big[4000];
	struct ctl_store *s = open_store(256 << 10);
	struct amqp_record def = queue_def("big");
	uint64_t id, last = 0;
	unsigned put = 0;

	(void)state;
	def.blob = (struct amqp_span){big, sizeof big};
	while (put < 1000 && (id = ctl_store_put(s, &def)) != 0) {
		assert_true(ctl_store_commit(s));
		last = id;
		put++;
	}
	assert_true(put > 5 && put < 1000);
	assert_true(ctl_store_commit(s)); /* what was refused leaves nothing behind that cannot be committed */
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(ctl_store_put(s, &def), 0);
		assert_true(ctl_store_del(s, last));
		assert_true(ctl_store_commit(s));
		last = ctl_store_put(s, &def); /* freed room is used again */
		assert_int_not_equal(last, 0);
		assert_true(ctl_store_commit(s));
	}
	ctl_store_close(s);
	s = open_store(1 << 20);
	assert_int_equal(all(s, AMQP_OP_QUEUE_ADD).count, put);
	ctl_store_close(s);
}

static void a_directory_that_cannot_be_used_is_named(void **state)
{
	char err[256];

	(void)state;
	assert_null(ctl_store_open("/proc/nonexistent/tickwire", 1 << 20, true, err, sizeof err));
	assert_non_null(strstr(err, "/proc/nonexistent/tickwire"));
}

/* ---- the arena ---- */

#define ARENA_BYTES (1u << 20)

static uint8_t *make_arena(void)
{
	uint8_t *p = aligned_alloc(CTL_ARENA_ALIGN, ARENA_BYTES);

	assert_non_null(p);
	memset(p, 0, ARENA_BYTES);
	return p;
}

static void images_never_overlap_and_freed_room_is_used_again(void **state)
{
	uint8_t *base = make_arena();
	uint64_t offsets[64], sizes[64];
	struct ctl_arena a;
	uint32_t count = 0, seed = 7;

	(void)state;
	ctl_arena_attach(&a, base, ARENA_BYTES);
	for (unsigned round = 0; round < 20000; round++) {
		seed = seed * 1664525u + 1013904223u;
		if (count < 64 && (seed >> 16) % 3 != 0) {
			uint64_t bytes = 1 + (seed >> 8) % 60000;
			struct ctl_image *img = ctl_arena_take(&a, bytes, round, round);

			if (img == NULL)
				continue;
			assert_int_equal(img->offset % CTL_ARENA_ALIGN, 0);
			assert_true(img->offset >= CTL_ARENA_LIST_BYTES && img->offset + bytes <= ARENA_BYTES);
			for (uint32_t i = 0; i < count; i++)
				assert_true(img->offset + bytes <= offsets[i] || offsets[i] + sizes[i] <= img->offset);
			offsets[count] = img->offset;
			sizes[count++] = bytes;
		} else if (count != 0) {
			uint32_t i = (seed >> 8) % count;

			assert_true(ctl_arena_free(&a, offsets[i]));
			offsets[i] = offsets[--count];
			sizes[i] = sizes[count];
		}
	}
	while (count != 0)
		assert_true(ctl_arena_free(&a, offsets[--count]));
	assert_int_equal(ctl_arena_used_bytes(&a), 0);
	assert_non_null(ctl_arena_take(&a, ARENA_BYTES - CTL_ARENA_LIST_BYTES, 1, 1)); /* one whole piece again */
	assert_null(ctl_arena_take(&a, 1, 1, 1));
	assert_false(ctl_arena_free(&a, 4096));
	ctl_arena_detach(&a);
	free(base);
}

static void a_new_control_finds_the_images_of_the_one_that_died(void **state)
{
	uint8_t *base = make_arena();
	struct ctl_arena a, b;
	uint64_t second;

	(void)state;
	ctl_arena_attach(&a, base, ARENA_BYTES);
	ctl_arena_take(&a, 5000, 1, 10);
	second = ctl_arena_take(&a, 6000, 2, 11)->offset;
	ctl_arena_take(&a, 7000, 3, 12);
	ctl_arena_free(&a, ctl_arena_find(&a, second)->offset);
	ctl_arena_detach(&a);
	ctl_arena_attach(&b, base, ARENA_BYTES);
	assert_int_equal(b.count, 2);
	assert_true(b.images[0].adopted && b.images[0].exchange_id == 1 && b.images[0].bytes == 5000 &&
		    b.images[0].generation == 10);
	assert_int_equal(b.images[1].exchange_id, 3);
	assert_int_equal(ctl_arena_take(&b, 6000, 4, 13)->offset, second);
	ctl_arena_detach(&b);
	free(base);
}

static void a_list_that_was_written_over_is_not_believed(void **state)
{
	uint8_t *base = make_arena();
	struct ctl_arena a;
	uint32_t seed = 3;

	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		ctl_arena_attach(&a, base, ARENA_BYTES);
		for (uint32_t i = 0; i < a.count; i++) {
			assert_true(a.images[i].offset + a.images[i].bytes <= ARENA_BYTES &&
				    a.images[i].offset >= CTL_ARENA_LIST_BYTES);
			assert_true(i == 0 || a.images[i - 1].offset + a.images[i - 1].bytes <= a.images[i].offset);
		}
		ctl_arena_take(&a, 5000, 1, round);
		ctl_arena_detach(&a);
		for (unsigned i = 0; i < 8; i++) {
			seed = seed * 1664525u + 1013904223u;
			base[(seed >> 8) % 400] = (uint8_t)seed;
		}
	}
	free(base);
}

static void an_arena_too_small_for_its_list_places_nothing(void **state)
{
	uint8_t *base = make_arena();
	struct ctl_arena a;

	(void)state;
	ctl_arena_attach(&a, base, CTL_ARENA_LIST_BYTES);
	assert_null(ctl_arena_take(&a, 1, 1, 1));
	ctl_arena_detach(&a);
	free(base);
}

#define S(name) cmocka_unit_test_setup_teardown(name, make_dir, drop_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		S(what_was_committed_is_there_after_a_restart_and_what_was_not_is_not),
		S(definitions_may_be_deleted_while_they_are_walked),
		S(a_full_store_refuses_and_keeps_what_it_has),
		cmocka_unit_test(a_directory_that_cannot_be_used_is_named),
		cmocka_unit_test(images_never_overlap_and_freed_room_is_used_again),
		cmocka_unit_test(a_new_control_finds_the_images_of_the_one_that_died),
		cmocka_unit_test(a_list_that_was_written_over_is_not_believed),
		cmocka_unit_test(an_arena_too_small_for_its_list_places_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
