/*
 * topic.h - words of routing keys, and topic patterns in normal form.
 *
 * Owns: nothing; iterators over the caller's bytes.
 * Core: any; the worker's trie and control's compiler read patterns through the same iterator, so they cannot disagree.
 * Spec: AMQP 0-9-1 section 3.1.3.3 (topic exchange), RabbitMQ's reading of empty words.
 */
#ifndef TICKWIRE_MATCH_TOPIC_H
#define TICKWIRE_MATCH_TOPIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MATCH_KEY_MAX 255u /* routing and binding keys are short strings */

/* "" has no words; any other key has one more word than it has dots. */
struct match_words {
	const uint8_t *at, *end;
	bool more;
};

static inline void match_words_begin(struct match_words *w, const uint8_t *key, size_t len)
{
	w->at = key;
	w->end = len ? key + len : key;
	w->more = len > 0;
}

static inline bool match_words_next(struct match_words *w, const uint8_t **word, size_t *len)
{
	const uint8_t *p = w->at;

	if (!w->more)
		return false;
	while (p < w->end && *p != '.')
		p++;
	*word = w->at;
	*len = (size_t)(p - w->at);
	w->more = p < w->end;
	w->at = w->more ? p + 1 : p;
	return true;
}

enum match_token { TOKEN_END, TOKEN_WORD, TOKEN_STAR, TOKEN_HASH };

/*
 * A pattern's tokens in normal form: of a run of wildcards only the number of '*' and whether there is a '#' has a
 * meaning, so the stars come first and one '#' at most follows. "#.*.#" is given as STAR, HASH.
 */
struct match_pattern {
	struct match_words words;
	const uint8_t *word;
	size_t word_len;
	uint32_t stars;
	bool hash, held;
};

static inline void match_pattern_begin(struct match_pattern *t, const uint8_t *pattern, size_t len)
{
	*t = (struct match_pattern){0};
	match_words_begin(&t->words, pattern, len);
}

static inline enum match_token match_pattern_next(struct match_pattern *t, const uint8_t **word, size_t *len)
{
	while (!t->held && match_words_next(&t->words, &t->word, &t->word_len)) {
		if (t->word_len == 1 && *t->word == '*')
			t->stars++;
		else if (t->word_len == 1 && *t->word == '#')
			t->hash = true;
		else
			t->held = true;
	}
	if (t->stars) {
		t->stars--;
		return TOKEN_STAR;
	}
	if (t->hash) {
		t->hash = false;
		return TOKEN_HASH;
	}
	if (!t->held)
		return TOKEN_END;
	t->held = false;
	*word = t->word;
	*len = t->word_len;
	return TOKEN_WORD;
}

static inline bool match_pattern_has_wildcard(const uint8_t *pattern, size_t len)
{
	struct match_pattern t;
	const uint8_t *word;
	size_t word_len;
	enum match_token token;

	match_pattern_begin(&t, pattern, len);
	while ((token = match_pattern_next(&t, &word, &word_len)) != TOKEN_END) {
		if (token != TOKEN_WORD)
			return true;
	}
	return false;
}

#endif
