/*
 * values.c - text to numbers, sizes, addresses: the values of options.
 *
 * Owns: nothing; pure functions.
 * Core: the main thread, at start.
 * Spec: RFC 791 dotted quads, RFC 4291 2.2, RFC 4632 prefix lengths, IEEE 802 addresses.
 */
#include "dataplane/values.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

/* Digits up to the first other character; NULL: none, or more than 64 bits. */
static const char *digits(const char *text, uint64_t *out)
{
	uint64_t n = 0;

	if (*text < '0' || *text > '9')
		return NULL;
	for (; *text >= '0' && *text <= '9'; text++)
		if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return NULL;
	*out = n;
	return text;
}

bool dp_value_number(const char *text, uint64_t *out)
{
	uint64_t n = 0;
	const char *end = digits(text, &n);

	if (end == NULL || *end != '\0')
		return false;
	*out = n;
	return true;
}

bool dp_value_size(const char *text, uint64_t *out)
{
	static const char units[] = "KMGT";
	uint64_t n = 0;
	const char *end = digits(text, &n), *unit;

	if (end == NULL)
		return false;
	if (*end != '\0') {
		unit = strchr(units, *end);
		if (unit == NULL || end[1] != '\0' || __builtin_mul_overflow(n, 1ull << (10 * (unit - units + 1)), &n))
			return false;
	}
	*out = n;
	return true;
}

bool dp_value_ipv4(const char *text, uint8_t out[4])
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) != 1)
		return false;
	memcpy(out, &a, 4);
	return true;
}

bool dp_value_ipv6(const char *text, uint8_t out[16])
{
	struct in6_addr a;

	if (inet_pton(AF_INET6, text, &a) != 1)
		return false;
	memcpy(out, &a, 16);
	return true;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool dp_value_mac(const char *text, uint8_t out[6])
{
	uint8_t mac[6];

	if (strlen(text) != 17)
		return false;
	for (unsigned i = 0; i < 6; i++) {
		int high = hex(text[3 * i]), low = hex(text[3 * i + 1]);

		if (high < 0 || low < 0 || (i < 5 && text[3 * i + 2] != ':'))
			return false;
		mac[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(out, mac, 6);
	return true;
}

bool dp_value_bool(const char *text, bool *out)
{
	static const char *const words[2][4] = {{"no", "false", "off", "0"}, {"yes", "true", "on", "1"}};

	for (unsigned value = 0; value < 2; value++)
		for (unsigned i = 0; i < 4; i++)
			if (strcasecmp(text, words[value][i]) == 0) {
				*out = value == 1;
				return true;
			}
	return false;
}
