/*
 * conf.h - the configuration file that both daemons read: sections, keys, values, and sentences about mistakes.
 *
 * Owns: the text of one file while it is being applied.
 * Core: start-up and reload of either daemon, never a worker; libc only.
 * Spec: our own: "[section]" or "[section NAME]", "key = value", "#" comments, values may stand in double quotes.
 */
#ifndef TICKWIRE_CTL_CONF_H
#define TICKWIRE_CTL_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CTL_CONF_BYTES_MAX (1u << 20)
#define CTL_CONF_EXIT_BAD  78 /* sysexits EX_CONFIG: what a daemon exits with when its file is bad */

/* One line that says something; a section's own line has key "" and comes before its keys. */
struct ctl_conf_item {
	const char *section, *name; /* "[user guest]": "user", "guest"; name is "" for "[control]" */
	const char *key, *value;
	unsigned line;
};
struct ctl_conf {
	char *path, *text;
	struct ctl_conf_item *items;
	size_t count;
};
/* Errors: false and "FILE:LINE: cause; cure" in err. ctl_conf_free() is wanted only after success. */
bool ctl_conf_load(struct ctl_conf *c, const char *path, char *err, size_t err_bytes);
bool ctl_conf_parse(struct ctl_conf *c, const char *path, const char *text, size_t len, char *err, size_t err_bytes);
void ctl_conf_free(struct ctl_conf *c);

enum ctl_conf_type {
	CTL_CONF_TEXT,    /* char[max]: the value must fit with its terminator */
	CTL_CONF_BOOL,    /* bool: yes no true false on off */
	CTL_CONF_UINT,    /* uint32_t within min..max */
	CTL_CONF_BYTES,   /* uint64_t within min..max; K M G (1024) may follow */
	CTL_CONF_WORD,    /* uint32_t: the index of the value in `words`, which are separated by spaces */
	CTL_CONF_ITEM,    /* handed to `item` */
	CTL_CONF_FOREIGN, /* the section is somebody else's: its keys are not looked at */
};
struct ctl_conf_key {
	const char *section, *key; /* key "" : the section's own line (ITEM only); ignored for FOREIGN */
	enum ctl_conf_type type;
	size_t offset; /* into the struct given to ctl_conf_apply() */
	uint64_t min, max;
	const char *words;
	/* Errors: false and a sentence without file and line, which are put before it. */
	bool (*item)(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes);
};
/* Every item by the table of keys. Errors: false and a sentence: unknown section or key, a key twice, a bad value. */
bool ctl_conf_apply(const struct ctl_conf *c, const struct ctl_conf_key *keys, size_t keys_count, void *out, char *err,
		    size_t err_bytes);

/* The next element of a list ("a, b c"): trimmed into `out`. False: no more, or *too_long. */
bool ctl_conf_list_next(const char **at, char *out, size_t out_bytes, bool *too_long);

#endif
