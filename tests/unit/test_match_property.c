/*
 * test_match_property.c - random bindings against random keys: every structure must agree with the naive oracle.
 *
 * Owns: the generators and the walk of one set through all its states.
 * Core: test. A seed may be given as the first argument; a failure prints its own.
 * Spec: DESIGN section 8.
 */
#include "tests/unit/match_headers_kit.h"

#define ROUNDS   5u
#define SUBJECTS 40u

static const uint64_t fixed_seeds[] = {1, 2, 3, 0x5eed, 20260101};
static uint64_t extra_seed = 0xca11ab1e;

struct subject {
	uint8_t bytes[KIT_KEY_MAX];
	size_t len;
};

/* ---- topics ---- */

static const struct {
	const char *bytes;
	size_t len;
} words[] = {
	{"a", 1},     {"b", 1},        {"ab", 2},
	{"", 0},      {"*", 1},        {"#", 1},
	{"*", 1},     {"#", 1},        {"aa", 2},
	{"A", 1},     {"\0", 1},       {"\n", 1},
	{"\xff", 1},  {"\r\n", 2},     {"a*", 2},
	{"##", 2},    {"**", 2},       {"[a]", 3},
	{"(a|b)", 5}, {"\\x61", 4},    {"$", 1},
	{"^", 1},     {"\\z", 2},      {"a+", 2},
	{"{2}", 3},   {"?", 1},        {"\\", 1},
	{"a\0b", 3},  {"eur", 3},      {"usd", 3},
	{"\x80", 1},  {"\xc3\xa9", 2}, {"a-word-of-more-than-23-bytes", 28},
};

static size_t random_topic(struct kit_rng *r, uint8_t *out, bool key)
{
	static const uint32_t counts[] = {0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 9};
	uint32_t count = counts[kit_below(r, sizeof(counts) / sizeof(counts[0]))];
	size_t len = 0;

	if (kit_below(r, 40) == 0)
		count = 128;
	for (uint32_t i = 0; i < count; i++) {
		/* most words come from a small end of the list, so that patterns and keys meet */
		uint32_t w = kit_below(r, kit_below(r, 3) ? 8 : (uint32_t)(sizeof(words) / sizeof(words[0])));

		if (key && words[w].len == 1 && (words[w].bytes[0] == '*' || words[w].bytes[0] == '#') && kit_below(r, 8))
			w = kit_below(r, 4);
		if (len + words[w].len + 1 > 255)
			break;
		if (i)
			out[len++] = '.';
		memcpy(out + len, words[w].bytes, words[w].len);
		len += words[w].len;
	}
	if (count && kit_below(r, 60) == 0) {
		memset(out + len, 'z', 255 - len);
		len = 255;
	}
	return len;
}

/* A key made from a pattern, its wildcards filled in, so that hits are not left to luck. */
static size_t key_from(struct kit_rng *r, const uint8_t *pattern, size_t pattern_len, uint8_t *out)
{
	size_t len = 0;

	for (size_t i = 0; i < pattern_len && len < 240; i++) {
		bool whole = (i == 0 || pattern[i - 1] == '.') && (i + 1 == pattern_len || pattern[i + 1] == '.');

		if (!whole || (pattern[i] != '*' && pattern[i] != '#') || kit_below(r, 10) == 0) {
			out[len++] = pattern[i];
			continue;
		}
		for (uint32_t n = pattern[i] == '*' ? 1 : kit_below(r, 4); n--;) {
			out[len++] = (uint8_t) "ab*"[kit_below(r, 3)];
			if (n)
				out[len++] = '.';
		}
	}
	/* now and then the dot of a '#' that took no word goes as well */
	if (len && out[len - 1] == '.' && kit_below(r, 2))
		len--;
	return len;
}

/* ---- headers ---- */

static const char *const names[] = {"a", "b", "ab", "sym", "a\1S", "", "a-header-with-a-name-of-many-bytes"};

static struct kit_header random_header(struct kit_rng *r, bool rule)
{
	static const char sly[] = "x\0b\1Sy\0";
	static const char *const texts[] = {"", "1", "x", "xy", "\1", "\2\3", "true", "a\1Sx"};
	static const double reals[] = {0.0, 1.0, -1.0, 1.5, 0x1p63, -0x1p63, 1e300, 2.0};
	static const int64_t ints[] = {0, 1, -1, 2, INT64_MAX, INT64_MIN, 255, 1 << 20};
	static char huge[2][700];
	const char *name = names[kit_below(r, sizeof(names) / sizeof(names[0]))];

	if (!huge[0][0]) {
		memset(huge[0], 'h', sizeof(huge[0]) - 1);
		memset(huge[1], 'h', sizeof(huge[1]) - 1);
		huge[1][650] = 'i';
	}
	switch (kit_below(r, 8)) {
	case 0:
		return rule || kit_below(r, 2) ? kit_void(name) : kit_int(name, 1);
	case 1:
		return kit_bool(name, kit_below(r, 2));
	case 2:
	case 3:
		return kit_int(name, ints[kit_below(r, 8)]);
	case 4:
		return kit_double(name, reals[kit_below(r, 8)]);
	case 5:
		return kit_other(name, (uint8_t) "TFAD"[kit_below(r, 4)], texts[kit_below(r, 8)]);
	case 6:
		if (kit_below(r, 8) == 0)
			return kit_text(name, huge[kit_below(r, 2)]);
		if (kit_below(r, 4) == 0)
			return kit_named(name, (struct match_value){.kind = MATCH_VALUE_BYTES,
								    .data = (const uint8_t *)sly,
								    .len = sizeof(sly) - 1});
		return kit_text(name, texts[kit_below(r, 8)]);
	default:
		return kit_text(name, texts[kit_below(r, 3)]);
	}
}

struct list {
	struct kit_header h[6];
	size_t count;
	enum match_headers_mode mode;
};

static struct list random_list(struct kit_rng *r, bool rule)
{
	struct list l = {.count = kit_below(r, rule ? 4 : 7), .mode = kit_below(r, 2) ? MATCH_ALL : MATCH_ANY};

	for (size_t i = 0; i < l.count; i++)
		l.h[i] = random_header(r, rule);
	return l;
}

static void the_oracle_on_canonical_bytes_agrees_with_values_compared_as_values(void **state)
{
	struct kit_rng r = {extra_seed};
	uint32_t matched = 0;

	(void)state;
	for (uint32_t n = 0; n < 100000; n++) {
		struct list rule = random_list(&r, true), have = random_list(&r, false);
		uint8_t a[8192], b[8192];
		size_t a_len = kit_rule_bytes(a, sizeof(a), rule.mode, rule.h, rule.count);
		size_t b_len = kit_subject_bytes(b, sizeof(b), have.h, have.count);
		bool means = kit_means(rule.mode, rule.h, rule.count, have.h, have.count);

		assert_true(a_len && b_len);
		matched += means;
		if (match_oracle(MATCH_HEADERS, a, a_len, b, b_len) != means) {
			kit_print_bytes("rule", a, a_len);
			kit_print_bytes("subject", b, b_len);
			fail_msg("seed %llu: should be %d", (unsigned long long)extra_seed, means);
		}
	}
	assert_true(matched > 10000 && matched < 90000);
}

/* ---- the walk of one set through its states ---- */

static size_t random_rule(struct kit_rng *r, enum match_kind kind, uint8_t *out)
{
	size_t len;

	if (kind != MATCH_HEADERS)
		return random_topic(r, out, false);
	do {
		struct list l = random_list(r, true);

		len = kit_rule_bytes(out, KIT_KEY_MAX, l.mode, l.h, l.count);
	} while (!len); /* three huge values do not fit a kit rule */
	return len;
}

static void random_subject(struct kit_rng *r, const struct kit_world *w, struct subject *s)
{
	if (w->kind == MATCH_HEADERS) {
		do {
			struct list l = random_list(r, false);

			s->len = kit_subject_bytes(s->bytes, sizeof(s->bytes), l.h, l.count);
		} while (!s->len);
	} else if (kit_below(r, 2)) {
		const struct kit_rule *rule = &w->rules[kit_below(r, w->rule_count)];

		s->len = key_from(r, rule->key, rule->len, s->bytes);
	} else {
		s->len = random_topic(r, s->bytes, true);
	}
}

static void add_some(struct kit_world *w, struct kit_rng *r, uint32_t count)
{
	while (count--) {
		uint8_t key[KIT_KEY_MAX];
		size_t len = random_rule(r, w->kind, key);

		/* ids are neither dense nor in order */
		kit_add(w, (w->rule_count * 2654435761u) ^ (uint32_t)w->seed, key, len);
	}
}

static void remove_some(struct kit_world *w, struct kit_rng *r)
{
	for (uint32_t i = 0; i < w->rule_count; i++) {
		if (w->rules[i].live && kit_below(r, 3) == 0)
			kit_remove(w, &w->rules[i]);
	}
}

static void judge_all(struct kit_world *w, struct kit_rng *r, const char *moment)
{
	struct subject s;

	w->moment = moment;
	for (uint32_t i = 0; i < SUBJECTS; i++) {
		random_subject(r, w, &s);
		kit_judge(w, s.bytes, s.len);
	}
}

static void judge_bare(const struct kit_world *from, struct kit_rng *r, const uint8_t *image, size_t bytes, uint64_t *comparisons)
{
	struct kit_world w;

	kit_world_init(&w, from->kind);
	w.seed = from->seed;
	memcpy(w.rules, from->rules, from->rule_count * sizeof(*w.rules));
	w.rule_count = from->rule_count;
	kit_take(&w, image, bytes);
	judge_all(&w, r, "database only");
	*comparisons += w.comparisons;
	kit_world_fini(&w);
}

static uint64_t one_round(enum match_kind kind, uint64_t seed)
{
	struct kit_world w;
	struct kit_rng r = {seed};
	struct kit_pool_free before;
	uint8_t *image[2];
	size_t bytes[2];
	uint64_t bare = 0;

	kit_world_init(&w, kind);
	w.seed = seed;
	before = kit_pool_free(w.pool);
	add_some(&w, &r, 24 + kit_below(&r, 16));
	judge_all(&w, &r, "overlay only");
	remove_some(&w, &r);
	judge_all(&w, &r, "overlay after removals");
	add_some(&w, &r, 20);
	image[0] = kit_compile(&w, 1, &bytes[0]);
	judge_bare(&w, &r, image[0], bytes[0], &bare);
	kit_take(&w, image[0], bytes[0]);
	judge_all(&w, &r, "overlay and database");
	for (bool more = true; more;) {
		more = match_forget_step(w.set, 15);
		judge_all(&w, &r, "while forgetting");
		if (more && kit_below(&r, 2))
			remove_some(&w, &r);
	}
	remove_some(&w, &r);
	judge_all(&w, &r, "database with tombstones");
	image[1] = kit_compile(&w, 2, &bytes[1]);
	add_some(&w, &r, 10);
	remove_some(&w, &r);
	judge_all(&w, &r, "old database, tombstones and a new overlay");
	{
		/* A rule that never met the old database and went while the new one was compiled comes back with it: control
		 * says again what it removed meanwhile. */
		kit_take(&w, image[1], bytes[1]);
		for (uint32_t i = 0; i < w.rule_count; i++) {
			if (!w.rules[i].live)
				match_rule_remove(w.set, w.rules[i].id);
		}
	}
	judge_all(&w, &r, "new database, nothing forgotten yet");
	while (match_forget_step(w.set, 4))
		judge_all(&w, &r, "while forgetting again");
	judge_all(&w, &r, "after all");
	match_db_close(match_set_close(w.set));
	kit_assert_pool_free(w.pool, before);
	w.set = match_set_open(w.pool, kind);
	bare += w.comparisons;
	kit_world_fini(&w);
	free(image[0]);
	free(image[1]);
	return bare;
}

static void rounds(enum match_kind kind)
{
	uint64_t comparisons = 0;

	for (size_t i = 0; i <= sizeof(fixed_seeds) / sizeof(fixed_seeds[0]); i++) {
		uint64_t seed = i < sizeof(fixed_seeds) / sizeof(fixed_seeds[0]) ? fixed_seeds[i] : extra_seed;

		for (uint32_t n = 0; n < ROUNDS; n++)
			comparisons += one_round(kind, seed + n * 1000003u);
	}
	print_message("# %llu comparisons, extra seed %llu\n", (unsigned long long)comparisons, (unsigned long long)extra_seed);
	assert_true(comparisons >= 100000);
}

static void random_topics_match_as_the_oracle_says_in_every_state_of_a_set(void **state)
{
	(void)state;
	rounds(MATCH_TOPIC);
}

static void random_headers_match_as_the_oracle_says_in_every_state_of_a_set(void **state)
{
	(void)state;
	rounds(MATCH_HEADERS);
}

static void random_exact_keys_match_as_the_oracle_says(void **state)
{
	struct kit_world w;
	struct kit_rng r = {extra_seed};

	(void)state;
	kit_world_init(&w, MATCH_EXACT);
	w.seed = extra_seed;
	for (uint32_t n = 0; n < 10; n++) {
		add_some(&w, &r, 40);
		judge_all(&w, &r, "exact");
		remove_some(&w, &r);
		judge_all(&w, &r, "exact after removals");
	}
	kit_world_fini(&w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_oracle_on_canonical_bytes_agrees_with_values_compared_as_values),
		cmocka_unit_test(random_exact_keys_match_as_the_oracle_says),
		cmocka_unit_test(random_topics_match_as_the_oracle_says_in_every_state_of_a_set),
		cmocka_unit_test(random_headers_match_as_the_oracle_says_in_every_state_of_a_set),
	};

	if (argc > 1)
		extra_seed = strtoull(argv[1], NULL, 0);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
