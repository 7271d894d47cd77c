/*
 * test_match_topic.c - what a topic pattern means, said once and held against oracle, overlay and database.
 *
 * Owns: the table of RabbitMQ's answers for odd keys.
 * Core: test.
 * Spec: AMQP 0-9-1 section 3.1.3.3; RabbitMQ 3.10 for empty words.
 */
#include "tests/unit/match_kit.h"

struct meaning {
	const char *pattern, *key;
	bool matches;
};

static const struct meaning meanings[] = {
	/* "" has no words */
	{"", "", true},
	{"#", "", true},
	{"#.#", "", true},
	{"*", "", false},
	{"*.#", "", false},
	{"#.*", "", false},
	{"a", "", false},
	{"", "a", false},
	{"", ".", false},
	/* one word */
	{"*", "a", true},
	{"*", "*", true},
	{"*", "#", true},
	{"a", "a", true},
	{"a", "A", false},
	{"#", "a", true},
	{"#.#", "a", true},
	{"*.#", "a", true},
	{"#.*", "a", true},
	{"*.#.*", "a", false},
	{"*.*", "a", false},
	/* empty words */
	{"*.*", ".", true},
	{"*", ".", false},
	{".", ".", true},
	{"*.", ".", true},
	{".*", ".", true},
	{"#.*", ".", true},
	{"*.*.*", "..", true},
	{"a.", "a.", true},
	{"a.*", "a.", true},
	{"a.", "a", false},
	{"a", "a.", false},
	{"a.#", "a.", true},
	{"*.a", ".a", true},
	{"#.a", ".a", true},
	{"a..b", "a..b", true},
	{"a.*.b", "a..b", true},
	{"a.*.b", "a.b", false},
	{"a.#.b", "a..b", true},
	{"a.#.b", "a.b", true},
	/* '#' takes any number of words, between whole words only */
	{"a.#", "a", true},
	{"a.#", "a.b.c", true},
	{"a.#", "ab", false},
	{"#.b", "b", true},
	{"#.b", "a.b", true},
	{"#.b", "ab", false},
	{"a.#.b", "ab", false},
	{"a.#.b", "a.x.y.b", true},
	{"a.#.b", "a.b.b", true},
	{"a.#.b", "a.b.c", false},
	{"*.#.*", "a.b", true},
	{"*.#.*", "a.b.c", true},
	{"#.a.#", "x.a.y", true},
	{"#.a.#", "a", true},
	{"#.a.#", "xa.ya", false},
	{"#.a.#.a.#", "a", false},
	{"#.a.#.a.#", "a.a", true},
	{"#.a.#.a.#", "x.a.x.a", true},
	{"#.*.a", "a", false},
	{"#.*.a", "a.a", true},
	{"a.*.#", "a", false},
	{"a.#.*", "a.b", true},
	{"a.*.#.b", "a.b", false},
	{"a.#.*.b", "a.x.b", true},
	/* wildcards are whole words */
	{"a*", "a*", true},
	{"a*", "ab", false},
	{"*a.#", "ba", false},
	{"##", "a", false},
	{"##", "##", true},
	{"**.#", "a", false},
	/* bytes that mean something to a regular expression */
	{"[^.]+.*", "[^.]+.x", true},
	{"[^.]+.*", "ab.x", false},
	{"[ab].*", "a.x", false},
	{"(a|b).*", "(a|b).x", true},
	{"(a|b).*", "a.x", false},
	{"$.#", "$", true},
	{"^.#", "^.a", true},
	{"\\z.#", "\\z.a", true},
	{"\n.#", "\n", true},
	{"a.#", "a\n", false},
	{"*", "a\n", true},
	{"*.b", "\n.b", true},
	{"#.b", "\n.b", true},
	{"a.#.b", "a.\n.b", true},
	{"\xff.*", "\xff.\xfe", true},
	{"\xff.*", "\xfe.\xfe", false},
};

#define MEANINGS (sizeof(meanings) / sizeof(meanings[0]))

static void the_oracle_gives_rabbitmqs_answers(void **state)
{
	(void)state;
	for (size_t i = 0; i < MEANINGS; i++) {
		const struct meaning *m = &meanings[i];
		bool got = match_oracle(MATCH_TOPIC, (const uint8_t *)m->pattern, strlen(m->pattern), (const uint8_t *)m->key,
					strlen(m->key));

		if (got != m->matches)
			fail_msg("pattern '%s', key '%s'", m->pattern, m->key);
	}
}

static void meanings_hold(struct kit_world *w)
{
	for (size_t i = 0; i < MEANINGS; i++) {
		const struct meaning *m = &meanings[i];
		uint32_t ids[MEANINGS];
		size_t n = match_find(w->set, (const uint8_t *)m->key, strlen(m->key), ids, MEANINGS);
		bool got = false;

		for (size_t j = 0; j < n; j++)
			got = got || ids[j] == 1000 + i;
		if (got != m->matches)
			fail_msg("%s: pattern '%s', key '%s'", w->moment, m->pattern, m->key);
		kit_judge(w, (const uint8_t *)m->key, strlen(m->key));
	}
}

static void overlay_and_database_give_rabbitmqs_answers(void **state)
{
	struct kit_world w;
	struct match_set_info info;
	size_t bytes;
	uint8_t *image;

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	for (size_t i = 0; i < MEANINGS; i++)
		kit_add(&w, (uint32_t)(1000 + i), meanings[i].pattern, strlen(meanings[i].pattern));
	w.moment = "overlay";
	meanings_hold(&w);
	image = kit_compile(&w, 7, &bytes);
	kit_take(&w, image, bytes);
	w.moment = "overlay and database";
	meanings_hold(&w);
	assert_false(match_forget_step(w.set, 10000));
	match_set_info(w.set, &info);
	assert_int_equal(info.overlay_rules, 0);
	assert_int_equal(info.rules, MEANINGS);
	assert_int_equal(info.db_rules, MEANINGS);
	assert_int_equal(info.db_generation, 7);
	w.moment = "database";
	meanings_hold(&w);
	kit_world_fini(&w);
	free(image);
}

static void a_fresh_set_matches_by_its_database_alone(void **state)
{
	struct kit_world w, bare;
	size_t bytes;
	uint8_t *image;

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	kit_world_init(&bare, MATCH_TOPIC);
	for (size_t i = 0; i < MEANINGS; i++) {
		bare.rules[i] = *kit_add(&w, (uint32_t)(1000 + i), meanings[i].pattern, strlen(meanings[i].pattern));
		bare.rule_count++;
	}
	image = kit_compile(&w, 1, &bytes);
	kit_take(&bare, image, bytes);
	bare.moment = "database, nothing ever added";
	meanings_hold(&bare);
	kit_world_fini(&bare);
	kit_world_fini(&w);
	free(image);
}

static void keys_of_255_bytes_match_and_longer_ones_are_refused(void **state)
{
	struct kit_world w;
	uint8_t key[256];
	size_t bytes;
	uint8_t *image;
	struct match_rule rule = {1, key, sizeof(key)};
	char err[200];

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	memset(key, 'q', sizeof(key));
	assert_int_equal(match_rule_add(w.set, 1, key, 256), -2);
	assert_null(match_compile(MATCH_TOPIC, &rule, 1, 1, &bytes, err, sizeof(err)));
	assert_non_null(strstr(err, "256 bytes"));
	kit_add(&w, 2, key, 255);
	key[0] = '#';
	key[1] = '.';
	kit_add(&w, 3, key, 255);
	for (size_t i = 0; i < 255; i++)
		key[i] = i & 1 ? '.' : '*';
	kit_add(&w, 4, key, 255); /* 128 words */
	for (size_t i = 0; i < 255; i++)
		key[i] = i & 1 ? '.' : i & 2 ? 'a' : '#';
	kit_add(&w, 5, key, 255); /* #.a.#.a ... */
	memset(key, '.', 255);
	kit_add(&w, 6, key, 255); /* 256 empty words */
	image = kit_compile(&w, 1, &bytes);
	for (int db = 0; db < 2; db++) {
		for (size_t len = 253; len <= 256; len++) {
			memset(key, 'q', sizeof(key));
			kit_judge(&w, key, len);
			memset(key, '.', sizeof(key));
			kit_judge(&w, key, len);
			for (size_t i = 0; i < 256; i++)
				key[i] = i & 1 ? '.' : 'a';
			kit_judge(&w, key, len);
		}
		kit_take(&w, image, bytes);
		match_forget_step(w.set, 100);
	}
	kit_world_fini(&w);
	free(image);
}

/* The walk's cost is nodes times words; were it exponential this test would not end. */
static void patterns_with_many_hashes_cost_bounded_work(void **state)
{
	struct kit_world w;
	char pattern[256] = "", key[256] = "";

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	for (uint32_t i = 0; i < 63; i++)
		strcat(pattern, i ? ".#.a" : "#.a");
	kit_add(&w, 1, pattern, strlen(pattern));
	for (uint32_t i = 0; i < 40; i++) {
		snprintf(pattern, sizeof(pattern), "#.#.a.#.#.#.*.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.a.#.x%u", i);
		kit_add(&w, 2 + i, pattern, strlen(pattern));
	}
	for (uint32_t i = 0; i < 127; i++)
		strcat(key, i ? ".a" : "a");
	for (uint32_t i = 0; i < 200; i++)
		kit_judge(&w, (const uint8_t *)key, strlen(key));
	kit_world_fini(&w);
}

static void two_patterns_that_mean_the_same_are_two_rules(void **state)
{
	struct kit_world w;
	struct kit_rule *first;
	size_t bytes;
	uint8_t *image;

	(void)state;
	kit_world_init(&w, MATCH_TOPIC);
	first = kit_add(&w, 11, "a.#.*", 5);
	kit_add(&w, 12, "a.*.#", 5);
	kit_add(&w, 13, "a.#.*.#", 7);
	image = kit_compile(&w, 1, &bytes);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	kit_remove(&w, first);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	first->live = true;
	assert_int_equal(match_rule_add(w.set, 11, first->key, first->len), 0);
	kit_take(&w, image, bytes);
	match_forget_step(w.set, 100);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	kit_remove(&w, first);
	kit_judge(&w, (const uint8_t *)"a.b", 3);
	kit_world_fini(&w);
	free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_oracle_gives_rabbitmqs_answers),
		cmocka_unit_test(overlay_and_database_give_rabbitmqs_answers),
		cmocka_unit_test(a_fresh_set_matches_by_its_database_alone),
		cmocka_unit_test(keys_of_255_bytes_match_and_longer_ones_are_refused),
		cmocka_unit_test(patterns_with_many_hashes_cost_bounded_work),
		cmocka_unit_test(two_patterns_that_mean_the_same_are_two_rules),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
