/*
 * headers.c - the canonical form of headers bindings (rules) and message headers (subjects).
 *
 * Owns: the encoding described in headers.h; writes into the caller's buffer only.
 * Core: subjects on the worker, rules wherever bindings are made; no state, no allocation.
 * Spec: RabbitMQ's headers exchange: numbers compare by value, bool and string are not numbers, void means "present".
 */
#include <stdlib.h>

#include "matcher/headers.h"
#include "matcher/matcher.h"

static void put_byte(struct match_headers *h, uint8_t b)
{
	if (h->len < h->cap)
		h->buf[h->len++] = b;
	else
		h->overflow = true;
}

static void put_escaped(struct match_headers *h, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len && !h->overflow; i++) {
		if (data[i] <= MATCH_ESCAPE) {
			put_byte(h, MATCH_ESCAPE);
			put_byte(h, (uint8_t)(data[i] + 3));
		} else {
			put_byte(h, data[i]);
		}
	}
}

static void put_hex(struct match_headers *h, uint64_t v)
{
	int shift = 60;

	while (shift > 0 && !(v >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		put_byte(h, (uint8_t) "0123456789abcdef"[(v >> shift) & 15]);
}

static void put_int(struct match_headers *h, int64_t i)
{
	put_byte(h, MATCH_KIND_INT);
	if (i < 0)
		put_byte(h, '-');
	put_hex(h, i < 0 ? 0 - (uint64_t)i : (uint64_t)i);
}

static void put_double(struct match_headers *h, double d)
{
	uint64_t bits;

	/* Both bounds are exact doubles, and the comparison is false for NaN; what remains fits an int64. */
	if (d >= -0x1p63 && d < 0x1p63 && (double)(int64_t)d == d) {
		put_int(h, (int64_t)d);
		return;
	}
	memcpy(&bits, &d, sizeof(bits));
	if (d != d)
		bits = 0x7ff8000000000000u; /* every NaN is written alike */
	put_byte(h, MATCH_KIND_REAL);
	put_hex(h, bits);
}

static void put_value(struct match_headers *h, const struct match_value *v)
{
	switch (v->kind) {
	case MATCH_VALUE_VOID:
		put_byte(h, MATCH_KIND_VOID);
		break;
	case MATCH_VALUE_BOOL:
		put_byte(h, MATCH_KIND_BOOL);
		put_byte(h, v->i ? '1' : '0');
		break;
	case MATCH_VALUE_INT:
		put_int(h, v->i);
		break;
	case MATCH_VALUE_DOUBLE:
		put_double(h, v->d);
		break;
	case MATCH_VALUE_BYTES:
		put_byte(h, MATCH_KIND_BYTES);
		put_escaped(h, v->data, v->len);
		break;
	case MATCH_VALUE_OTHER:
		put_byte(h, MATCH_KIND_OTHER);
		put_escaped(h, &v->tag, 1);
		put_escaped(h, v->data, v->len);
		break;
	}
}

void match_headers_rule_begin(struct match_headers *h, uint8_t *buf, size_t cap, enum match_headers_mode mode)
{
	*h = (struct match_headers){.buf = buf, .cap = cap};
	put_byte(h, mode == MATCH_ALL ? MATCH_MODE_ALL : MATCH_MODE_ANY);
	put_byte(h, MATCH_ITEM_END);
}

void match_headers_subject_begin(struct match_headers *h, uint8_t *buf, size_t cap)
{
	*h = (struct match_headers){.buf = buf, .cap = cap};
	put_byte(h, MATCH_ITEM_END);
}

bool match_headers_put(struct match_headers *h, const uint8_t *name, size_t name_len, const struct match_value *v)
{
	put_escaped(h, name, name_len);
	put_byte(h, MATCH_NAME_END);
	put_value(h, v);
	put_byte(h, MATCH_ITEM_END);
	h->count++;
	return !h->overflow;
}

struct item_span {
	size_t at, len; /* with the 0x00 behind it */
};

/* Moves `right` bytes at `mid` in front of the `left` bytes before them. */
static void rotate(uint8_t *start, size_t left, size_t right)
{
	uint8_t held[512];

	while (right) {
		size_t n = right < sizeof(held) ? right : sizeof(held);
		uint8_t *from = start + left;

		memcpy(held, from, n);
		memmove(start + n, start, left);
		memcpy(start, held, n);
		start += n;
		right -= n;
	}
}

/* Selection sort: the smallest item left is rotated to the front, and those it passed move up. */
static size_t sort_items(uint8_t *buf, struct item_span *span, size_t count)
{
	size_t at = count ? span[0].at : 0, kept = 0;

	for (size_t i = 0; i < count; i++) {
		struct item_span least;
		size_t m = i;

		for (size_t j = i + 1; j < count; j++) {
			size_t n = span[j].len < span[m].len ? span[j].len : span[m].len;

			/* The closing 0x00 is below every byte of an item, so a prefix sorts first. */
			if (memcmp(buf + span[j].at, buf + span[m].at, n) < 0)
				m = j;
		}
		least = span[m];
		rotate(buf + at, least.at - at, least.len);
		for (size_t j = m; j > i; j--) {
			span[j] = span[j - 1];
			span[j].at += least.len;
		}
		span[i] = (struct item_span){at, least.len};
		at += least.len;
	}
	/* Equal items say the same twice: one is kept. */
	for (size_t i = 0; i < count; i++) {
		if (kept && span[kept - 1].len == span[i].len &&
		    memcmp(buf + span[kept - 1].at, buf + span[i].at, span[i].len) == 0)
			continue;
		if (kept != i)
			memmove(buf + (kept ? span[kept - 1].at + span[kept - 1].len : span[0].at), buf + span[i].at, span[i].len);
		span[kept] = (struct item_span){kept ? span[kept - 1].at + span[kept - 1].len : span[0].at, span[i].len};
		kept++;
	}
	return kept;
}

size_t match_headers_end(struct match_headers *h)
{
	struct item_span span[MATCH_RULE_ITEMS_MAX];
	size_t count = 0;

	if (!h->overflow && h->len && h->buf[0] != MATCH_ITEM_END) {
		struct match_items it;
		const uint8_t *item;
		size_t len;

		if (h->count > MATCH_RULE_ITEMS_MAX)
			h->overflow = true;
		match_items_begin(&it, h->buf + 2, h->len - 2);
		while (!h->overflow && match_items_next(&it, &item, &len))
			span[count++] = (struct item_span){(size_t)(item - h->buf), len + 1};
		count = sort_items(h->buf, span, count);
		if (!h->overflow && count)
			h->len = span[count - 1].at + span[count - 1].len;
		h->count = (uint32_t)count;
	}
	return h->overflow ? 0 : h->len;
}

static bool hex_check(const uint8_t *p, size_t len)
{
	if (len < 1 || len > 16)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!((p[i] >= '0' && p[i] <= '9') || (p[i] >= 'a' && p[i] <= 'f')))
			return false;
	}
	return len == 1 || p[0] != '0';
}

static bool value_check(const uint8_t *v, size_t len)
{
	if (!len)
		return false;
	switch (*v) {
	case MATCH_KIND_VOID:
		return len == 1;
	case MATCH_KIND_BOOL:
		return len == 2 && (v[1] == '0' || v[1] == '1');
	case MATCH_KIND_INT:
		return len > 1 && v[1] == '-' ? hex_check(v + 2, len - 2) : hex_check(v + 1, len - 1);
	case MATCH_KIND_REAL:
		return hex_check(v + 1, len - 1);
	case MATCH_KIND_BYTES:
		return true;
	case MATCH_KIND_OTHER:
		return len > 1;
	default:
		return false;
	}
}

static bool item_check(const uint8_t *item, size_t len)
{
	const uint8_t *name_end = memchr(item, MATCH_NAME_END, len);

	if (!name_end)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (item[i] == MATCH_NAME_END && item + i != name_end)
			return false;
		if (item[i] != MATCH_ESCAPE)
			continue;
		if (i + 1 >= len || item[i + 1] < 3 || item[i + 1] > 5)
			return false;
		i++;
	}
	return value_check(name_end + 1, len - (size_t)(name_end + 1 - item));
}

bool match_rule_check(const uint8_t *rule, size_t len, uint32_t *items, bool *any)
{
	const uint8_t *before = NULL, *at;
	size_t before_len = 0;
	uint32_t count = 0;

	if (len < 2 || (rule[0] != MATCH_MODE_ALL && rule[0] != MATCH_MODE_ANY) || rule[1] != MATCH_ITEM_END ||
	    rule[len - 1] != MATCH_ITEM_END)
		return false;
	for (at = rule + 2; at < rule + len;) {
		const uint8_t *stop = memchr(at, MATCH_ITEM_END, (size_t)(rule + len - at));
		size_t item_len = (size_t)(stop - at) + 1;

		if (stop == at || ++count > MATCH_RULE_ITEMS_MAX || !item_check(at, item_len - 1))
			return false;
		if (before && memcmp(before, at, before_len < item_len ? before_len : item_len) >= 0)
			return false;
		before = at;
		before_len = item_len;
		at = stop + 1;
	}
	*items = count;
	*any = rule[0] == MATCH_MODE_ANY;
	return true;
}
