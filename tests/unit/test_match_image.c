/*
 * test_match_image.c - images: used by a process that did not make them, and refused or harmless when damaged.
 *
 * Owns: the hand-over through a sealed memfd, and the flipping of bytes.
 * Core: test; match_image_child is the other process.
 * Spec: DESIGN sections 5 (what control wrote is not trusted) and 6.
 */
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "matcher/image.h"
#include "tests/unit/match_headers_kit.h"

static void fill_topic(struct kit_world *w)
{
	static const char *const patterns[] = {"#", "*", "a.#", "#.b", "a.*.b", "a.#.b", "", ".", "x.y.z", "*.#", "\n.#", "#.\xff"};

	kit_world_init(w, MATCH_TOPIC);
	for (uint32_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
		kit_add(w, 10 + 3 * i, patterns[i], strlen(patterns[i]));
}

static void fill_headers(struct kit_world *w)
{
	static char value[600];
	uint8_t rule[KIT_KEY_MAX];
	const struct kit_header h[] = {kit_text("a", "x"), kit_int("b", 7), kit_void("c"), kit_double("d", 1.5)};

	memset(value, 'q', sizeof(value) - 1);
	kit_world_init(w, MATCH_HEADERS);
	for (uint32_t i = 0; i <= 4; i++) {
		kit_add(w, 100 + i, rule, kit_rule_bytes(rule, sizeof(rule), MATCH_ALL, h, i));
		kit_add(w, 200 + i, rule, kit_rule_bytes(rule, sizeof(rule), MATCH_ANY, h, i));
	}
	kit_add(w, 300, rule, kit_rule_bytes(rule, sizeof(rule), MATCH_ALL, (struct kit_header[]){kit_text("a", value)}, 1));
}

static size_t headers_subject(uint8_t *out, size_t cap, uint32_t bits)
{
	static char value[600];
	const struct kit_header all[] = {kit_text("a", bits & 16 ? value : "x"), kit_double("b", 7), kit_int("c", 1),
					 kit_double("d", bits & 32 ? 2.5 : 1.5)};
	struct kit_header some[4];
	size_t count = 0;

	memset(value, 'q', sizeof(value) - 1);
	for (uint32_t i = 0; i < 4; i++) {
		if (bits & (1u << i))
			some[count++] = i ? all[i] : kit_text("a", bits & 16 ? value : "x");
	}
	return kit_subject_bytes(out, cap, some, count);
}

static const char *const topic_keys[] = {"",        "a",     "b",  ".",    "..",   "a.b",   "a.x.b",
					 "a.x.y.b", "x.y.z", "\n", "\n.q", "\xff", "q.\xff"};

static size_t subject_make(enum match_kind kind, uint32_t i, uint8_t *out, size_t cap)
{
	if (kind == MATCH_HEADERS)
		return headers_subject(out, cap, i);
	memcpy(out, topic_keys[i], strlen(topic_keys[i]));
	return strlen(topic_keys[i]);
}

static uint32_t subject_count(enum match_kind kind)
{
	return kind == MATCH_HEADERS ? 64 : (uint32_t)(sizeof(topic_keys) / sizeof(topic_keys[0]));
}

static int memfd_with(const void *data, size_t bytes)
{
	int fd = memfd_create("match-image", MFD_ALLOW_SEALING | MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, bytes), bytes);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
	return fd;
}

static void child_run(int image, int subjects, int results)
{
	char path[PATH_MAX], child[PATH_MAX + 32];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	int status = 0;
	pid_t pid;

	assert_true(n > 0);
	path[n] = '\0';
	snprintf(child, sizeof(child), "%s/../helper/match_image_child", dirname(path));
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		/* out of the way first: a source may itself be 3, 4 or 5 */
		int a = fcntl(image, F_DUPFD, 10), b = fcntl(subjects, F_DUPFD, 10), c = fcntl(results, F_DUPFD, 10);

		if (dup2(a, 3) == 3 && dup2(b, 4) == 4 && dup2(c, 5) == 5)
			execl(child, child, (char *)NULL);
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void another_process_agrees(struct kit_world *w)
{
	uint8_t subject[KIT_KEY_MAX];
	size_t bytes, at = 0;
	uint8_t *image = kit_compile(w, 3, &bytes);
	static uint8_t list[64 * (KIT_KEY_MAX + 4)];
	int fd_image = memfd_with(image, bytes), fd_subjects, fd_results = memfd_create("match-results", MFD_CLOEXEC);
	uint32_t count = 0, hits = 0;

	for (uint32_t i = 0; i < subject_count(w->kind); i++) {
		uint32_t len = (uint32_t)subject_make(w->kind, i, subject, sizeof(subject));

		memcpy(list + at, &len, 4);
		memcpy(list + at + 4, subject, len);
		at += 4 + len;
	}
	fd_subjects = memfd_with(list, at);
	child_run(fd_image, fd_subjects, fd_results);
	assert_int_equal(lseek(fd_results, 0, SEEK_SET), 0);
	for (uint32_t i = 0; i < subject_count(w->kind); i++) {
		size_t len = subject_make(w->kind, i, subject, sizeof(subject));
		uint32_t ids[KIT_RULES_MAX];

		assert_int_equal(read(fd_results, &count, 4), 4);
		assert_true(count <= KIT_RULES_MAX);
		assert_int_equal(read(fd_results, ids, 4 * (size_t)count), 4 * count);
		for (uint32_t r = 0; r < w->rule_count; r++) {
			bool want = match_oracle(w->kind, w->rules[r].key, w->rules[r].len, subject, len);
			uint32_t have = 0;

			for (uint32_t j = 0; j < count; j++)
				have += ids[j] == w->rules[r].id;
			assert_int_equal(have, want);
			hits += want;
		}
	}
	assert_true(hits > 20);
	assert_int_equal(read(fd_results, &count, 4), 0);
	close(fd_image);
	close(fd_subjects);
	close(fd_results);
	free(image);
	kit_world_fini(w);
}

static void an_image_scans_from_a_read_only_mapping_in_another_process(void **state)
{
	struct kit_world w;

	(void)state;
	fill_topic(&w);
	another_process_agrees(&w);
	fill_headers(&w);
	another_process_agrees(&w);
}

/* Opens what may be rubbish; if it is taken, it is used, and must stay inside its bounds (ASan and the asserts watch). */
static bool opens(struct kit_world *w, const uint8_t *image, size_t bytes)
{
	char err[200] = "";
	struct match_db *db = match_db_open(image, bytes, err, sizeof(err));
	uint8_t subject[KIT_KEY_MAX];
	struct match_scratch *scratch;
	struct match_set *set;
	uint32_t ids[64];

	if (!db) {
		assert_true(err[0] && err[strlen(err) - 1] == '.');
		return false;
	}
	scratch = match_scratch_grow(NULL, db);
	assert_non_null(scratch);
	scratch = match_pool_set_scratch(w->pool, scratch);
	set = match_set_open(w->pool, match_db_kind(db));
	if (!match_set_take_db(set, db)) {
		for (uint32_t i = 0; i < subject_count(match_db_kind(db)); i++) {
			size_t len = subject_make(match_db_kind(db), i, subject, sizeof(subject));

			match_find(set, subject, len, ids, 64);
		}
		assert_ptr_equal(match_set_close(set), db);
	} else {
		match_set_close(set);
	}
	match_scratch_free(match_pool_set_scratch(w->pool, scratch));
	match_db_close(db);
	return true;
}

static void tables_sum_fix(uint8_t *image, size_t bytes)
{
	struct match_image_header h;
	struct match_image_layout l;

	memcpy(&h, image, sizeof(h));
	l = match_image_layout(&h);
	if (h.hs_bytes > bytes || l.hs > bytes || l.hs < sizeof(h))
		return;
	h.tables_sum = match_image_tables_sum(image, l.hs);
	memcpy(image, &h, sizeof(h));
}

static void flip_everywhere(struct kit_world *w)
{
	size_t bytes;
	uint8_t *image = kit_compile(w, 3, &bytes);
	struct match_image_header h;
	size_t tables;
	uint32_t taken = 0;

	memcpy(&h, image, sizeof(h));
	tables = match_image_layout(&h).hs;
	assert_true(opens(w, image, bytes));
	for (size_t i = 0; i < bytes; i++) {
		for (uint32_t bit = 0; bit < 8; bit += i < tables ? 1 : 5) {
			image[i] ^= (uint8_t)(1u << bit);
			if (opens(w, image, bytes))
				fail_msg("byte %zu, bit %u: taken though damaged", i, bit);
			image[i] ^= (uint8_t)(1u << bit);
		}
	}
	/* The same with a sum to match: what is in our tables must then be refused for what it says, or do no harm. */
	for (size_t i = 0; i < tables; i++) {
		static const uint8_t values[] = {0, 1, 2, 0x7f, 0x80, 0xff};
		uint8_t was = image[i];

		for (uint32_t v = 0; v < sizeof(values); v++) {
			image[i] = values[v];
			tables_sum_fix(image, bytes);
			taken += opens(w, image, bytes);
		}
		image[i] = was;
		tables_sum_fix(image, bytes);
	}
	assert_true(taken > 0); /* the generation, say, may be anything */
	assert_true(opens(w, image, bytes));
	for (size_t n = 0; n < bytes; n += n < tables + 256 ? 1 : 97)
		assert_false(opens(w, image, n));
	free(image);
}

static void a_flipped_byte_is_refused_and_if_the_sums_are_right_it_is_harmless(void **state)
{
	struct kit_world w;

	(void)state;
	fill_topic(&w);
	flip_everywhere(&w);
	kit_world_fini(&w);
	fill_headers(&w);
	flip_everywhere(&w);
	kit_world_fini(&w);
}

static void random_tables_with_right_sums_do_no_harm(void **state)
{
	struct kit_world w;
	struct kit_rng r = {7};
	size_t bytes, tables;
	uint8_t *image, *copy;
	struct match_image_header h;

	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		if (kind)
			fill_headers(&w);
		else
			fill_topic(&w);
		image = kit_compile(&w, 3, &bytes);
		copy = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
		assert_non_null(copy);
		memcpy(&h, image, sizeof(h));
		tables = match_image_layout(&h).hs;
		for (uint32_t n = 0; n < 20000; n++) {
			memcpy(copy, image, bytes);
			for (uint32_t k = 1 + kit_below(&r, 4); k--;) {
				uint32_t at = kit_below(&r, (uint32_t)tables / 4) * 4;
				uint32_t v = kit_below(&r, 3) ? kit_below(&r, 70) : (uint32_t)kit_next(&r);

				memcpy(copy + at, &v, 4);
			}
			tables_sum_fix(copy, bytes);
			opens(&w, copy, bytes);
		}
		free(copy);
		free(image);
		kit_world_fini(&w);
	}
}

/* The pattern table is cut to one entry and the tails take its bytes: all sums and sizes are right, but Hyperscan knows more. */
static void a_pattern_id_behind_the_table_is_ignored(void **state)
{
	struct match_rule rules[] = {
		{1, (const uint8_t *)"a.*", 3}, {2, (const uint8_t *)"*.b", 3}, {3, (const uint8_t *)"#.b", 3}};
	struct match_image_header h;
	struct kit_world w;
	size_t bytes;
	uint8_t *image = match_compile(MATCH_TOPIC, rules, 3, 1, &bytes, NULL, 0);
	uint32_t ids[3];

	(void)state;
	assert_non_null(image);
	for (uint32_t cut = 0; cut < 2; cut++) {
		memcpy(&h, image, sizeof(h));
		assert_int_equal(h.patterns, 3);
		if (cut) {
			h.patterns = 1;
			h.tail_bytes = 2 * sizeof(struct match_image_pattern);
			memcpy(image, &h, sizeof(h));
			tables_sum_fix(image, bytes);
		}
		kit_world_init(&w, MATCH_TOPIC);
		kit_take(&w, image, bytes);
		assert_int_equal(match_find(w.set, (const uint8_t *)"a.b", 3, ids, 3), cut ? 1 : 3);
		kit_world_fini(&w);
	}
	free(image);
}

static void an_image_off_its_alignment_is_refused(void **state)
{
	struct kit_world w;
	size_t bytes;
	uint8_t *image, *room;

	(void)state;
	fill_topic(&w);
	image = kit_compile(&w, 3, &bytes);
	room = aligned_alloc(64, (bytes + 127) & ~(size_t)63);
	assert_non_null(room);
	for (size_t off = 0; off < 64; off += 8) {
		memcpy(room + off, image, bytes);
		assert_int_equal(opens(&w, room + off, bytes), off == 0);
	}
	assert_null(match_db_open(NULL, 0, NULL, 0));
	free(room);
	free(image);
	kit_world_fini(&w);
}

static void an_image_tells_its_generation_and_its_sorted_ids(void **state)
{
	struct match_rule rules[] = {
		{90, (const uint8_t *)"a.#", 3}, {4, (const uint8_t *)"#", 1}, {UINT32_MAX, (const uint8_t *)"", 0}};
	size_t bytes;
	uint8_t *image = match_compile(MATCH_TOPIC, rules, 3, 0x123456789abcdefu, &bytes, NULL, 0);
	struct match_db *db = match_db_open(image, bytes, NULL, 0);
	const uint32_t *ids;

	(void)state;
	assert_non_null(db);
	assert_true(match_db_generation(db) == 0x123456789abcdefu);
	assert_int_equal(match_db_rule_ids(db, &ids), 3);
	assert_int_equal(ids[0], 4);
	assert_int_equal(ids[1], 90);
	assert_int_equal(ids[2], UINT32_MAX);
	match_db_close(db);
	free(image);
}

static void an_image_of_no_rules_matches_nothing_and_one_without_scans_needs_no_scratch(void **state)
{
	struct match_rule always = {1, (const uint8_t *)"#.#", 3};
	struct kit_world w;
	size_t bytes;

	(void)state;
	for (size_t count = 0; count < 2; count++) {
		uint8_t *image = match_compile(MATCH_TOPIC, &always, count, 1, &bytes, NULL, 0);
		struct match_db *db = match_db_open(image, bytes, NULL, 0);
		uint32_t id;

		assert_non_null(db);
		kit_world_init(&w, MATCH_TOPIC);
		assert_null(match_set_take_db(w.set, db));
		assert_int_equal(match_find(w.set, (const uint8_t *)"x", 1, &id, 1), count);
		assert_int_equal(match_find(w.set, (const uint8_t *)"", 0, &id, 1), count);
		kit_world_fini(&w);
		free(image);
	}
}

static void what_cannot_be_compiled_is_refused_with_a_sentence(void **state)
{
	struct match_rule twice[] = {{5, (const uint8_t *)"a", 1}, {5, (const uint8_t *)"b", 1}};
	char err[200] = "";
	size_t bytes;

	(void)state;
	assert_null(match_compile(MATCH_TOPIC, twice, 2, 1, &bytes, err, sizeof(err)));
	assert_string_equal(err, "Rule 5 was given twice.");
	assert_null(match_compile(MATCH_EXACT, twice, 1, 1, &bytes, err, sizeof(err)));
	assert_string_equal(err, "Only topic and headers exchanges have databases.");
}

static void one_scratch_grows_to_fit_several_databases(void **state)
{
	struct kit_world topic, headers;
	struct match_scratch *scratch = NULL, *grown;
	struct match_set *second;
	struct match_db *db[2];
	size_t bytes[2];
	uint8_t *image[2], subject[KIT_KEY_MAX];
	uint32_t ids[64];

	(void)state;
	fill_topic(&topic);
	fill_headers(&headers);
	image[0] = kit_compile(&topic, 1, &bytes[0]);
	image[1] = kit_compile(&headers, 1, &bytes[1]);
	for (int i = 0; i < 2; i++) {
		db[i] = match_db_open(image[i], bytes[i], NULL, 0);
		assert_non_null(db[i]);
		grown = match_scratch_grow(scratch, db[i]);
		assert_non_null(grown);
		match_scratch_free(scratch);
		scratch = grown;
	}
	match_pool_set_scratch(topic.pool, scratch);
	second = match_set_open(topic.pool, MATCH_HEADERS);
	assert_null(match_set_take_db(topic.set, db[0]));
	assert_null(match_set_take_db(second, db[1]));
	for (uint32_t i = 0; i < 13; i++) {
		size_t len = subject_make(MATCH_TOPIC, i, subject, sizeof(subject));

		kit_judge(&topic, subject, len);
		len = subject_make(MATCH_HEADERS, i, subject, sizeof(subject));
		assert_int_equal(match_find(second, subject, len, ids, 64), match_find(headers.set, subject, len, ids, 64));
	}
	match_db_close(match_set_close(second));
	kit_world_fini(&topic);
	kit_world_fini(&headers);
	free(image[0]);
	free(image[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_image_scans_from_a_read_only_mapping_in_another_process),
		cmocka_unit_test(a_flipped_byte_is_refused_and_if_the_sums_are_right_it_is_harmless),
		cmocka_unit_test(random_tables_with_right_sums_do_no_harm),
		cmocka_unit_test(a_pattern_id_behind_the_table_is_ignored),
		cmocka_unit_test(an_image_off_its_alignment_is_refused),
		cmocka_unit_test(an_image_tells_its_generation_and_its_sorted_ids),
		cmocka_unit_test(an_image_of_no_rules_matches_nothing_and_one_without_scans_needs_no_scratch),
		cmocka_unit_test(what_cannot_be_compiled_is_refused_with_a_sentence),
		cmocka_unit_test(one_scratch_grows_to_fit_several_databases),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
