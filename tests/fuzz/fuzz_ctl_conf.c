/*
 * fuzz_ctl_conf.c - a configuration file of any octets.
 *
 * Owns: nothing.
 * Core: libFuzzer, or the replay of the corpus.
 * Spec: control/conf.h: it is read or refused with a sentence.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "control/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool item(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	const char *at = it->value;
	char word[8];
	bool too_long;

	(void)out;
	(void)err;
	(void)err_bytes;
	while (ctl_conf_list_next(&at, word, sizeof word, &too_long))
		assert(strlen(word) < sizeof word);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct values {
		char text[8];
		bool flag;
		uint32_t number;
		uint64_t bytes;
	} v = {.text = ""};
	const struct ctl_conf_key keys[] = {
		{"control", "text", CTL_CONF_TEXT, offsetof(struct values, text), 0, 8, NULL, NULL},
		{"control", "flag", CTL_CONF_BOOL, offsetof(struct values, flag), 0, 0, NULL, NULL},
		{"control", "number", CTL_CONF_UINT, offsetof(struct values, number), 1, 9, NULL, NULL},
		{"control", "bytes", CTL_CONF_BYTES, offsetof(struct values, bytes), 0, UINT64_MAX, NULL, NULL},
		{"user", "", CTL_CONF_ITEM, 0, 0, 0, NULL, item},
		{"user", "list", CTL_CONF_ITEM, 0, 0, 0, NULL, item},
		{"dataplane", NULL, CTL_CONF_FOREIGN, 0, 0, 0, NULL, NULL},
	};
	struct ctl_conf c;
	char err[200] = "";

	if (!ctl_conf_parse(&c, "f", (const char *)data, size, err, sizeof err)) {
		assert(err[0] != '\0');
		return 0;
	}
	if (!ctl_conf_apply(&c, keys, sizeof keys / sizeof keys[0], &v, err, sizeof err))
		assert(err[0] != '\0');
	assert(strlen(v.text) < 8 && v.number <= 9);
	ctl_conf_free(&c);
	return 0;
}
