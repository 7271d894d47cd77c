/*
 * test_match_set.c - the life of rules in a set: limits, removal, take-over, forgetting, and giving everything back.
 *
 * Owns: the cases that the property test would meet too rarely.
 * Core: test.
 * Spec: DESIGN sections 4 and 6.
 */
#include "tests/unit/match_kit.h"

static void exact_keys_are_found_whatever_their_bytes(void **state)
{
	struct kit_world w;
	uint8_t key[256];

	(void)state;
	kit_world_init(&w, MATCH_EXACT);
	memset(key, 0, sizeof(key));
	kit_add(&w, 1, "", 0);
	kit_add(&w, 2, "#", 1);
	kit_add(&w, 3, "a.*", 3);
	kit_add(&w, 4, key, 1);
	kit_add(&w, 5, key, 2);
	kit_add(&w, 6, key, 255);
	kit_add(&w, 7, "a\nb\xff", 4);
	assert_int_equal(match_rule_add(w.set, 8, key, 256), -2);
	kit_judge(&w, (const uint8_t *)"", 0);
	kit_judge(&w, (const uint8_t *)"#", 1);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	kit_judge(&w, (const uint8_t *)"a.*", 3);
	kit_judge(&w, (const uint8_t *)"a\nb\xff", 4);
	for (size_t len = 0; len <= 256; len++)
		kit_judge(&w, key, len);
	kit_remove(&w, &w.rules[5]);
	kit_judge(&w, key, 255);
	kit_world_fini(&w);
}

static void sets_of_one_pool_do_not_see_each_others_rules(void **state)
{
	struct match_limits l = kit_limits();
	void *mem;
	struct match_pool *p = kit_pool(&l, &mem);
	struct match_set *s[4];
	uint32_t id;

	(void)state;
	for (uint32_t i = 0; i < 4; i++) {
		s[i] = match_set_open(p, i < 2 ? MATCH_EXACT : MATCH_TOPIC);
		assert_non_null(s[i]);
	}
	assert_null(match_set_open(p, MATCH_EXACT));
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(match_rule_add(s[i], 9, (const uint8_t *)(i & 1 ? "b.#" : "a.#"), 3), 0);
	assert_int_equal(match_find(s[0], (const uint8_t *)"a.#", 3, &id, 1), 1);
	assert_int_equal(match_find(s[1], (const uint8_t *)"a.#", 3, &id, 1), 0);
	assert_int_equal(match_find(s[2], (const uint8_t *)"a.x", 3, &id, 1), 1);
	assert_int_equal(match_find(s[3], (const uint8_t *)"a.x", 3, &id, 1), 0);
	assert_null(match_set_close(s[2]));
	assert_int_equal(match_find(s[3], (const uint8_t *)"b.x", 3, &id, 1), 1);
	s[2] = match_set_open(p, MATCH_TOPIC);
	assert_non_null(s[2]);
	assert_int_equal(match_find(s[2], (const uint8_t *)"a.x", 3, &id, 1), 0);
	free(mem);
}

static void more_results_than_room_are_counted_and_not_written(void **state)
{
	struct kit_world w;
	uint32_t ids[4] = {0, 0, 0xdead, 0xdead};

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	kit_add(&w, 1, "#", 1);
	kit_add(&w, 2, "*", 1);
	kit_add(&w, 3, "a", 1);
	assert_int_equal(match_find(w.set, (const uint8_t *)"a", 1, ids, 2), 3);
	assert_int_equal(ids[2], 0xdead);
	assert_int_equal(match_find(w.set, (const uint8_t *)"a", 1, NULL, 0), 3);
	kit_world_fini(&w);
}

static void ids_live_in_hash_or_overlay_are_refused(void **state)
{
	struct kit_world w;

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	kit_add(&w, 1, "a.b", 3);
	kit_add(&w, 2, "a.#", 3);
	assert_int_equal(match_rule_add(w.set, 1, (const uint8_t *)"x", 1), -3);
	assert_int_equal(match_rule_add(w.set, 2, (const uint8_t *)"x", 1), -3);
	assert_false(match_rule_remove(w.set, 3));
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	kit_world_fini(&w);
}

static size_t find_one(struct match_set *s, const char *key)
{
	uint32_t ids[4];

	return match_find(s, (const uint8_t *)key, strlen(key), ids, 4);
}

/* Bind, compile, unbind, bind again: control gives the same id, for an image still names it. */
static void a_rule_that_was_removed_while_a_database_names_it_can_be_added_again(void **state)
{
	struct kit_world w;
	size_t bytes;
	uint8_t *image, *later;

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	kit_add(&w, 2, "a.#", 3);
	kit_add(&w, 3, "b.#", 3);
	image = kit_compile(&w, 1, &bytes);
	kit_take(&w, image, bytes);
	while (match_forget_step(w.set, 10))
		;
	for (unsigned round = 0; round < 3; round++) {
		assert_true(match_rule_remove(w.set, 2));
		assert_int_equal(find_one(w.set, "a.x"), 0);
		assert_int_equal(match_rule_add(w.set, 2, (const uint8_t *)"a.#", 3), 0);
		assert_int_equal(find_one(w.set, "a.x"), 1);
	}
	/* Removed, and a new database is taken that names it still; added while its tombstone is stale. */
	assert_true(match_rule_remove(w.set, 2));
	later = kit_compile(&w, 2, &bytes);
	kit_take(&w, later, bytes);
	assert_int_equal(match_rule_add(w.set, 2, (const uint8_t *)"a.#", 3), 0);
	assert_int_equal(find_one(w.set, "a.x"), 1);
	while (match_forget_step(w.set, 1))
		assert_int_equal(find_one(w.set, "a.x"), 1);
	assert_int_equal(find_one(w.set, "a.x"), 1);
	assert_int_equal(find_one(w.set, "b.x"), 1);
	kit_world_fini(&w);
	free(image);
	free(later);
}

/* The image overtook the operation that adds the rule. */
static void a_rule_that_only_the_database_knows_can_be_added(void **state)
{
	struct kit_world w;
	size_t bytes;
	uint8_t *image;

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	kit_add(&w, 2, "a.#", 3);
	image = kit_compile(&w, 1, &bytes);
	assert_true(match_rule_remove(w.set, 2));
	kit_take(&w, image, bytes);
	assert_int_equal(match_rule_add(w.set, 2, (const uint8_t *)"a.#", 3), 0);
	assert_int_equal(find_one(w.set, "a.x"), 1);
	assert_int_equal(match_rule_add(w.set, 2, (const uint8_t *)"a.#", 3), -3);
	assert_true(match_rule_remove(w.set, 2));
	assert_int_equal(find_one(w.set, "a.x"), 0);
	kit_world_fini(&w);
	free(image);
}

/* Adds with ever less room: every refusal must leave the pool as it was. */
static void a_full_pool_refuses_and_keeps_nothing_of_the_refused_rule(void **state)
{
	static const uint8_t rule[] = "A\0long-header-name-of-more-than-23-bytes\1Svalue\0n\1I1\0";
	uint32_t refused = 0;

	(void)state;
	for (uint32_t nodes = 0; nodes < 8; nodes++) {
		for (uint32_t arena = 0; arena < 512; arena += 16) {
			struct match_limits l = {.sets_max = 2, .rules_max = 3, .nodes_max = nodes, .key_bytes_max = arena};
			static const char word[] = "*.a-word-of-more-than-twenty-three-bytes.#.b";
			void *mem;
			struct match_pool *p = kit_pool(&l, &mem);
			struct match_set *topic = match_set_open(p, MATCH_TOPIC), *headers = match_set_open(p, MATCH_HEADERS);
			struct kit_pool_free before = kit_pool_free(p);
			int rc[4];

			rc[0] = match_rule_add(topic, 1, (const uint8_t *)word, sizeof(word) - 1);
			rc[1] = match_rule_add(headers, 1, rule, sizeof(rule) - 1);
			rc[2] = match_rule_add(topic, 2, (const uint8_t *)"exact", 5);
			rc[3] = match_rule_add(topic, 3, (const uint8_t *)"#", 1);
			for (uint32_t i = 0; i < 4; i++) {
				assert_true(rc[i] == 0 || rc[i] == -1);
				refused += rc[i] != 0;
			}
			if (!rc[0])
				assert_true(match_rule_remove(topic, 1));
			if (!rc[1])
				assert_true(match_rule_remove(headers, 1));
			if (!rc[2])
				assert_true(match_rule_remove(topic, 2));
			if (!rc[3])
				assert_true(match_rule_remove(topic, 3));
			kit_assert_pool_free(p, before);
			free(mem);
		}
	}
	assert_true(refused > 100);
}

static void as_many_rules_as_the_limit_says_and_not_one_more(void **state)
{
	struct match_limits l = {.sets_max = 1, .rules_max = 5, .nodes_max = 100, .key_bytes_max = 4096};
	void *mem;
	struct match_pool *p = kit_pool(&l, &mem);
	struct match_set *s = match_set_open(p, MATCH_TOPIC);

	(void)state;
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(match_rule_add(s, i, (const uint8_t *)"a.#", 3), 0);
	assert_int_equal(match_rule_add(s, 9, (const uint8_t *)"a.#", 3), -1);
	assert_true(match_rule_remove(s, 2));
	assert_int_equal(match_rule_add(s, 9, (const uint8_t *)"a.#", 3), 0);
	free(mem);
}

/* A rule that only the database knows needs a record when it is removed; the pool must have kept one. */
static void every_rule_of_a_database_can_be_removed_though_the_pool_is_full(void **state)
{
	enum { RULES = 64 };
	struct match_limits l = {.sets_max = 1, .rules_max = RULES, .nodes_max = 1000, .key_bytes_max = 1u << 16};
	struct kit_world w = {.kind = MATCH_TOPIC, .moment = "full"};
	size_t bytes;
	uint8_t *image;
	uint32_t added = 0;

	(void)state;
	w.rules = calloc(KIT_RULES_MAX, sizeof(*w.rules));
	w.pool = kit_pool(&l, &w.mem);
	w.set = match_set_open(w.pool, MATCH_TOPIC);
	for (uint32_t i = 0; i < RULES; i++) {
		char pattern[16];

		kit_add(&w, 100 + i, pattern, (size_t)snprintf(pattern, sizeof(pattern), "*.k%u", i % 7));
	}
	image = kit_compile(&w, 1, &bytes);
	kit_take(&w, image, bytes);
	assert_int_equal(match_rule_add(w.set, 5, (const uint8_t *)"#", 1), -1);
	assert_false(match_forget_step(w.set, RULES));
	while (match_rule_add(w.set, 1000 + added, (const uint8_t *)"z.#", 3) == 0)
		added++;
	assert_int_equal(added, RULES);
	for (uint32_t i = 0; i < RULES; i++)
		kit_remove(&w, &w.rules[i]);
	kit_judge(&w, (const uint8_t *)"a.k3", 4);
	for (uint32_t i = 0; i < added; i++)
		assert_true(match_rule_remove(w.set, 1000 + i));
	kit_world_fini(&w);
	free(image);
}

static void a_database_that_would_take_the_last_records_or_is_of_another_kind_is_handed_back(void **state)
{
	struct match_limits l = {.sets_max = 2, .rules_max = 2, .nodes_max = 100, .key_bytes_max = 4096};
	void *mem;
	struct match_pool *p = kit_pool(&l, &mem);
	struct match_set *topic = match_set_open(p, MATCH_TOPIC), *headers = match_set_open(p, MATCH_HEADERS);
	struct match_rule rules[5];
	struct match_set_info info;
	struct match_db *big, *small;
	size_t bytes[2];
	uint8_t *image[2];

	(void)state;
	for (uint32_t i = 0; i < 5; i++)
		rules[i] = (struct match_rule){i, (const uint8_t *)"#", 1};
	image[0] = match_compile(MATCH_TOPIC, rules, 5, 1, &bytes[0], NULL, 0);
	image[1] = match_compile(MATCH_TOPIC, rules, 2, 2, &bytes[1], NULL, 0);
	big = match_db_open(image[0], bytes[0], NULL, 0);
	small = match_db_open(image[1], bytes[1], NULL, 0);
	assert_true(big && small);
	assert_ptr_equal(match_set_take_db(topic, big), big);
	assert_ptr_equal(match_set_take_db(headers, small), small);
	match_set_info(topic, &info);
	assert_int_equal(info.db_rules, 0);
	assert_null(match_set_take_db(topic, small));
	assert_ptr_equal(match_set_take_db(topic, NULL), small);
	match_db_close(big);
	match_db_close(small);
	free(image[0]);
	free(image[1]);
	free(mem);
}

/* The image was begun before the removal, so it brings the rule again; the tombstone must outlive the take-over. */
static void a_tombstone_survives_a_database_that_still_names_the_rule(void **state)
{
	struct kit_world w;
	struct kit_pool_free before;
	size_t bytes[3];
	uint8_t *image[3];

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	before = kit_pool_free(w.pool);
	kit_add(&w, 1, "a.#", 3);
	kit_add(&w, 2, "*.b", 3);
	image[0] = kit_compile(&w, 1, &bytes[0]);
	image[1] = kit_compile(&w, 2, &bytes[1]);
	kit_take(&w, image[0], bytes[0]);
	match_forget_step(w.set, 10);
	kit_assert_pool_free(w.pool, before);
	kit_remove(&w, &w.rules[0]);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	kit_take(&w, image[1], bytes[1]);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	assert_false(match_forget_step(w.set, 10));
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	image[2] = kit_compile(&w, 3, &bytes[2]);
	kit_take(&w, image[2], bytes[2]);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	assert_false(match_forget_step(w.set, 10));
	kit_assert_pool_free(w.pool, before);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	kit_world_fini(&w);
	for (size_t i = 0; i < 3; i++)
		free(image[i]);
}

static void forgetting_keeps_to_its_budget_and_says_when_more_is_to_do(void **state)
{
	struct kit_world w;
	struct match_set_info info;
	size_t bytes;
	uint8_t *image;

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	for (uint32_t i = 0; i < 20; i++)
		kit_add(&w, i, i < 10 ? "a.#" : "*.b", 3);
	image = kit_compile(&w, 1, &bytes);
	kit_add(&w, 50, "new.*", 5);
	kit_take(&w, image, bytes);
	for (uint32_t left = 21; left; left -= 7) {
		match_set_info(w.set, &info);
		assert_int_equal(info.overlay_rules, left);
		assert_int_equal(info.rules, 21);
		assert_int_equal(match_forget_step(w.set, 7), left > 7);
		kit_judge(&w, (const uint8_t *)"a.b", 3);
		kit_judge(&w, (const uint8_t *)"new.b", 5);
	}
	match_set_info(w.set, &info);
	assert_int_equal(info.overlay_rules, 1);
	assert_int_equal(info.exact_rules, 0);
	assert_int_equal(info.db_rules, 20);
	assert_int_equal(info.db_bytes, bytes);
	kit_world_fini(&w);
	free(image);
}

static void closing_a_set_gives_everything_back_and_hands_out_its_database(void **state)
{
	struct kit_world w;
	struct kit_pool_free before;
	struct match_db *db;
	size_t bytes;
	uint8_t *image;

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	before = kit_pool_free(w.pool);
	for (uint32_t i = 0; i < 30; i++) {
		char key[64];

		kit_add(&w, i, key,
			(size_t)snprintf(key, sizeof(key), i % 3 ? "*.word-%u.#.and-another-long-word-%u" : "exact.%u.%u", i, i));
	}
	image = kit_compile(&w, 1, &bytes);
	kit_take(&w, image, bytes);
	match_forget_step(w.set, 5);
	for (uint32_t i = 0; i < 30; i += 4)
		kit_remove(&w, &w.rules[i]);
	kit_add(&w, 900, "after.*", 7);
	db = match_set_close(w.set);
	assert_non_null(db);
	match_db_close(db);
	kit_assert_pool_free(w.pool, before);
	assert_int_equal(w.pool->local_count, 0);
	assert_int_equal(w.pool->stale_count, 0);
	assert_int_equal(w.pool->db_rule_count, 0);
	w.set = match_set_open(w.pool, MATCH_TOPIC);
	kit_world_fini(&w);
	free(image);
}

static void an_arena_comes_back_whole_after_any_order_of_frees(void **state)
{
	enum { UNITS = 3000, HELD = 200 };
	static uint8_t base[UNITS * MATCH_UNIT] __attribute__((aligned(64))), heads[UNITS];
	struct match_pool view = {.rec_free = MATCH_NONE, .node_free = MATCH_NONE};
	struct kit_rng r = {42};
	uint32_t held[HELD];
	size_t size[HELD];
	struct kit_pool_free before;

	(void)state;
	match_arena_init(&view.arena, base, heads, UNITS);
	before = kit_pool_free(&view);
	assert_int_equal(before.arena_bytes, UNITS * MATCH_UNIT);
	for (uint32_t i = 0; i < HELD; i++)
		held[i] = MATCH_NONE;
	for (uint32_t n = 0; n < 20000; n++) {
		uint32_t i = kit_below(&r, HELD);

		if (held[i] != MATCH_NONE) {
			const uint8_t *at = match_arena_at(&view.arena, held[i]);

			for (size_t b = 0; b < size[i]; b++)
				assert_int_equal(at[b], (uint8_t)i);
			match_arena_free(&view.arena, held[i]);
			held[i] = MATCH_NONE;
			continue;
		}
		size[i] = kit_below(&r, 1u << kit_below(&r, 11));
		held[i] = match_arena_alloc(&view.arena, size[i]);
		if (held[i] != MATCH_NONE)
			memset(match_arena_at(&view.arena, held[i]), (int)i, size[i]);
	}
	for (uint32_t i = 0; i < HELD; i++) {
		if (held[i] != MATCH_NONE)
			match_arena_free(&view.arena, held[i]);
	}
	kit_assert_pool_free(&view, before);
	assert_int_equal(match_arena_alloc(&view.arena, (size_t)1 << 40), MATCH_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_keys_are_found_whatever_their_bytes),
		cmocka_unit_test(sets_of_one_pool_do_not_see_each_others_rules),
		cmocka_unit_test(more_results_than_room_are_counted_and_not_written),
		cmocka_unit_test(ids_live_in_hash_or_overlay_are_refused),
		cmocka_unit_test(a_rule_that_was_removed_while_a_database_names_it_can_be_added_again),
		cmocka_unit_test(a_rule_that_only_the_database_knows_can_be_added),
		cmocka_unit_test(a_full_pool_refuses_and_keeps_nothing_of_the_refused_rule),
		cmocka_unit_test(as_many_rules_as_the_limit_says_and_not_one_more),
		cmocka_unit_test(every_rule_of_a_database_can_be_removed_though_the_pool_is_full),
		cmocka_unit_test(a_database_that_would_take_the_last_records_or_is_of_another_kind_is_handed_back),
		cmocka_unit_test(a_tombstone_survives_a_database_that_still_names_the_rule),
		cmocka_unit_test(forgetting_keeps_to_its_budget_and_says_when_more_is_to_do),
		cmocka_unit_test(closing_a_set_gives_everything_back_and_hands_out_its_database),
		cmocka_unit_test(an_arena_comes_back_whole_after_any_order_of_frees),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
