/*
 * headers.h - reading the canonical form of headers rules and subjects.
 *
 * Owns: nothing; iterators and checks over the caller's bytes.
 * Core: any.
 * Spec: matcher/README.md, "Canonical headers".
 *
 * An item is NAME 0x01 KIND VALUE; names and values are escaped (0x00, 0x01, 0x02 become 0x02 0x03, 0x02 0x04, 0x02 0x05), so
 * 0x00 stands between items and nowhere else, and an item framed by two 0x00 cannot be imitated by a value's bytes. A
 * subject is 0x00 (ITEM 0x00)*; a rule is the same behind one mode octet, its items in ascending order, none twice.
 */
#ifndef TICKWIRE_MATCH_HEADERS_H
#define TICKWIRE_MATCH_HEADERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define MATCH_ITEM_END   0x00u
#define MATCH_NAME_END   0x01u
#define MATCH_ESCAPE     0x02u
#define MATCH_MODE_ALL   'A'
#define MATCH_MODE_ANY   'O'
#define MATCH_KIND_VOID  'V'
#define MATCH_KIND_BOOL  'B'
#define MATCH_KIND_INT   'I'
#define MATCH_KIND_REAL  'D'
#define MATCH_KIND_BYTES 'S'
#define MATCH_KIND_OTHER 'X'

struct match_items {
	const uint8_t *at, *end;
};

static inline void match_items_begin(struct match_items *it, const uint8_t *items, size_t len)
{
	it->at = items;
	it->end = len ? items + len : items;
}

/* The next non-empty item, without the 0x00 around it. */
static inline bool match_items_next(struct match_items *it, const uint8_t **item, size_t *len)
{
	const uint8_t *stop;

	while (it->at < it->end && *it->at == MATCH_ITEM_END)
		it->at++;
	if (it->at >= it->end)
		return false;
	stop = memchr(it->at, MATCH_ITEM_END, (size_t)(it->end - it->at));
	if (!stop)
		stop = it->end;
	*item = it->at;
	*len = (size_t)(stop - it->at);
	it->at = stop;
	return true;
}

/*
 * What a rule's item asks for: the bytes that must stand in the subject behind a 0x00. A void item asks for the name
 * alone ("NAME 0x01"), any other for the whole item, and then another 0x00 must follow.
 */
static inline size_t match_item_predicate(const uint8_t *item, size_t len, bool *name_only)
{
	*name_only = len >= 2 && item[len - 1] == MATCH_KIND_VOID && item[len - 2] == MATCH_NAME_END;
	return *name_only ? len - 1 : len;
}

/* Checks a canonical rule whole. On success gives its number of items and whether one hit is enough. */
bool match_rule_check(const uint8_t *rule, size_t len, uint32_t *items, bool *any);

#endif
