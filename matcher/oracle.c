/*
 * oracle.c - what matches what, said in the plainest way: the judge of every property test.
 *
 * Owns: nothing; shares no code with the trie, the predicate lists or the compiler.
 * Core: tests only.
 * Spec: AMQP 0-9-1 section 3.1.3, RabbitMQ's reading of empty words and of headers (matcher/README.md).
 */
#include <stdlib.h>
#include <string.h>

#include "matcher/matcher.h"

struct span {
	const uint8_t *at;
	size_t len;
};

static size_t split(const uint8_t *s, size_t len, uint8_t by, struct span *out)
{
	size_t count = 0, from = 0;

	for (size_t i = 0; len && i <= len; i++) {
		if (i == len || s[i] == by) {
			out[count++] = (struct span){s + from, i - from};
			from = i + 1;
		}
	}
	return count;
}

static bool span_is(struct span s, const char *text)
{
	return s.len == strlen(text) && memcmp(s.at, text, s.len) == 0;
}

static bool span_equal(struct span a, struct span b)
{
	return a.len == b.len && (!a.len || memcmp(a.at, b.at, a.len) == 0);
}

/* fits[j]: the pattern words read so far match the first j words of the key. */
static bool topic_matches(const struct span *pattern, size_t pattern_count, const struct span *key, size_t key_count, bool *fits)
{
	memset(fits, 0, key_count + 1);
	fits[0] = true;
	for (size_t i = 0; i < pattern_count; i++) {
		if (span_is(pattern[i], "#")) {
			for (size_t j = 1; j <= key_count; j++)
				fits[j] = fits[j] || fits[j - 1];
			continue;
		}
		for (size_t j = key_count; j > 0; j--)
			fits[j] = fits[j - 1] && (span_is(pattern[i], "*") || span_equal(pattern[i], key[j - 1]));
		fits[0] = false;
	}
	return fits[key_count];
}

static bool oracle_topic(const uint8_t *pattern, size_t pattern_len, const uint8_t *key, size_t key_len)
{
	struct span *p = calloc(pattern_len + 1, sizeof(*p)), *k = calloc(key_len + 1, sizeof(*k));
	bool *fits = calloc(key_len + 2, sizeof(*fits));
	bool result = false;

	if (p && k && fits)
		result = topic_matches(p, split(pattern, pattern_len, '.', p), k, split(key, key_len, '.', k), fits);
	else
		abort();
	free(p);
	free(k);
	free(fits);
	return result;
}

static bool item_holds(struct span want, const struct span *have, size_t have_count)
{
	bool name_only = want.len >= 2 && want.at[want.len - 1] == 'V' && want.at[want.len - 2] == 1;

	for (size_t i = 0; i < have_count; i++) {
		if (span_equal(want, have[i]))
			return true;
		if (name_only && have[i].len >= want.len - 1 && memcmp(have[i].at, want.at, want.len - 1) == 0)
			return true;
	}
	return false;
}

static bool oracle_headers(const uint8_t *rule, size_t rule_len, const uint8_t *subject, size_t subject_len)
{
	struct span *want = calloc(rule_len + 1, sizeof(*want)), *have = calloc(subject_len + 1, sizeof(*have));
	size_t wanted = 0, held = 0, want_count, have_count;

	if (!want || !have)
		abort();
	want_count = rule_len ? split(rule + 1, rule_len - 1, 0, want) : 0;
	have_count = split(subject, subject_len, 0, have);
	for (size_t i = 0; i < want_count; i++) {
		if (!want[i].len)
			continue; /* what lies before the first separator and behind the last */
		wanted++;
		held += item_holds(want[i], have, have_count);
	}
	free(want);
	free(have);
	if (!rule_len)
		return false;
	return rule[0] == 'A' ? held == wanted : held > 0;
}

bool match_oracle(enum match_kind kind, const uint8_t *key, size_t key_len, const uint8_t *subject, size_t subject_len)
{
	switch (kind) {
	case MATCH_EXACT:
		return key_len == subject_len && (!key_len || memcmp(key, subject, key_len) == 0);
	case MATCH_TOPIC:
		return oracle_topic(key, key_len, subject, subject_len);
	case MATCH_HEADERS:
		return oracle_headers(key, key_len, subject, subject_len);
	}
	return false;
}
