/*
 * conf.c - reads a configuration file into items, and applies items by a table of known keys.
 *
 * Owns: nothing after it returns but the items handed out.
 * Core: start-up and reload of either daemon.
 * Spec: our own, see conf.h; a mistake is refused with file, line, cause and cure, never skipped.
 */
#include "control/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct parser {
	struct ctl_conf *c;
	const char *section, *name;
	unsigned line;
	size_t cap;
	char *err;
	size_t err_bytes;
};

static bool fail(struct parser *p, const char *fmt, ...)
{
	int n = snprintf(p->err, p->err_bytes, "%s:%u: ", p->c->path, p->line);
	va_list ap;

	if (n < 0 || (size_t)n >= p->err_bytes)
		return false;
	va_start(ap, fmt);
	vsnprintf(p->err + n, p->err_bytes - (size_t)n, fmt, ap);
	va_end(ap);
	return false;
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static char *trim(char *s)
{
	size_t n;

	while (blank(*s))
		s++;
	n = strlen(s);
	while (n > 0 && blank(s[n - 1]))
		s[--n] = '\0';
	return s;
}

static bool add_item(struct parser *p, const char *key, const char *value)
{
	struct ctl_conf *c = p->c;

	for (size_t i = 0; i < c->count; i++) {
		const struct ctl_conf_item *it = &c->items[i];

		if (strcmp(it->section, p->section) == 0 && strcmp(it->name, p->name) == 0 && strcmp(it->key, key) == 0)
			return fail(p, "%s%s is here twice, first in line %u; remove one of them", key[0] ? "key " : "this section",
				    key, it->line);
	}
	if (c->count == p->cap) {
		size_t cap = p->cap != 0 ? 2 * p->cap : 64;
		struct ctl_conf_item *items = realloc(c->items, cap * sizeof *items);

		if (items == NULL)
			return fail(p, "out of memory");
		c->items = items;
		p->cap = cap;
	}
	c->items[c->count++] = (struct ctl_conf_item){p->section, p->name, key, value, p->line};
	return true;
}

/* Takes quotes and a trailing comment off a value, in place. */
static bool unquote(struct parser *p, char *value, char **out)
{
	char *w = value, *r = value;

	if (*r != '"') {
		for (; *r != '\0'; r++)
			if (*r == '#' && (r == value || blank(r[-1]))) {
				*r = '\0';
				break;
			}
		*out = trim(value);
		return true;
	}
	for (r++; *r != '"'; r++) {
		if (*r == '\0')
			return fail(p, "the quoted value has no closing quote; end it with \"");
		if (*r == '\\' && (r[1] == '"' || r[1] == '\\'))
			r++;
		*w++ = *r;
	}
	r = trim(r + 1);
	if (*r != '\0' && *r != '#')
		return fail(p, "there is text after the closing quote; write \\\" for a quote inside a value");
	*w = '\0';
	*out = value;
	return true;
}

static bool parse_section(struct parser *p, char *s)
{
	char *close = strrchr(s, ']'), *rest, *gap;

	if (close == NULL)
		return fail(p, "a section's line has no ']'; write [control] or [user NAME]");
	rest = trim(close + 1);
	if (*rest != '\0' && *rest != '#')
		return fail(p, "there is text after ']'; put it on a line of its own");
	*close = '\0';
	s = trim(s + 1);
	gap = strpbrk(s, " \t");
	p->name = "";
	if (gap != NULL) {
		char *name;

		*gap = '\0';
		if (!unquote(p, trim(gap + 1), &name))
			return false;
		p->name = name;
	}
	if (*s == '\0')
		return fail(p, "a section has no name; write [control] or [user NAME]");
	p->section = s;
	return add_item(p, "", "");
}

static bool parse_line(struct parser *p, char *s)
{
	char *eq, *key, *value;

	s = trim(s);
	if (*s == '\0' || *s == '#')
		return true;
	if (*s == '[')
		return parse_section(p, s);
	eq = strchr(s, '=');
	if (eq == NULL)
		return fail(p, "'%.60s' is neither a [section] nor key = value; write one of the two, or begin it with #", s);
	*eq = '\0';
	key = trim(s);
	if (*key == '\0')
		return fail(p, "there is no key before '='");
	if (p->section == NULL)
		return fail(p, "key %.60s stands before the first [section]; put it into one", key);
	if (!unquote(p, trim(eq + 1), &value))
		return false;
	return add_item(p, key, value);
}

bool ctl_conf_parse(struct ctl_conf *c, const char *path, const char *text, size_t len, char *err, size_t err_bytes)
{
	struct parser p = {.c = c, .err = err, .err_bytes = err_bytes};
	char *at, *end;
	bool ok = true;

	memset(c, 0, sizeof *c);
	c->path = strdup(path);
	c->text = malloc(len + 1);
	if (c->path == NULL || c->text == NULL) {
		snprintf(err, err_bytes, "out of memory");
		ctl_conf_free(c);
		return false;
	}
	memcpy(c->text, text, len);
	c->text[len] = '\0';
	if (strlen(c->text) != len) {
		p.line = 1;
		ok = fail(&p, "the file has NUL octets in it; is it a text file?");
	}
	for (at = c->text; ok && at != NULL; at = end) {
		p.line++;
		end = strchr(at, '\n');
		if (end != NULL)
			*end++ = '\0';
		ok = parse_line(&p, at);
	}
	if (!ok)
		ctl_conf_free(c);
	return ok;
}

bool ctl_conf_load(struct ctl_conf *c, const char *path, char *err, size_t err_bytes)
{
	struct stat st;
	size_t len = 0;
	ssize_t n = 0;
	char *text;
	bool ok;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0) {
		snprintf(err, err_bytes, "%s: cannot be read: %s; name another file with --config", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return false;
	}
	text = malloc(CTL_CONF_BYTES_MAX + 1);
	while (text != NULL && len <= CTL_CONF_BYTES_MAX && (n = read(fd, text + len, CTL_CONF_BYTES_MAX + 1 - len)) > 0)
		len += (size_t)n;
	if (text == NULL || n < 0 || len > CTL_CONF_BYTES_MAX) {
		snprintf(err, err_bytes, "%s: cannot be read: %s", path,
			 len > CTL_CONF_BYTES_MAX ? "it is larger than 1 MiB; is it a configuration file?" : strerror(errno));
		ok = false;
	} else {
		ok = ctl_conf_parse(c, path, text, len, err, err_bytes);
	}
	free(text);
	close(fd);
	return ok;
}

void ctl_conf_free(struct ctl_conf *c)
{
	free(c->path);
	free(c->text);
	free(c->items);
	memset(c, 0, sizeof *c);
}

/* ---- applying ---- */

/* "a, b, c" of what the table knows: the keys of a section, or (section NULL) the sections. */
static void list_known(const struct ctl_conf_key *keys, size_t count, const char *section, char *out, size_t out_bytes)
{
	size_t len = 0;

	out[0] = '\0';
	for (size_t i = 0; i < count && len < out_bytes; i++) {
		const char *word = section != NULL ? keys[i].key : keys[i].section;
		bool seen = false;

		if (section != NULL && strcmp(keys[i].section, section) != 0)
			continue;
		for (size_t j = 0; section == NULL && j < i; j++)
			seen |= strcmp(keys[j].section, word) == 0;
		if (!seen && word != NULL && *word != '\0')
			len += (size_t)snprintf(out + len, out_bytes - len, "%s%s", len != 0 ? ", " : "", word);
	}
}

static bool parse_number(const char *s, uint64_t scale_limit, uint64_t *out)
{
	uint64_t v = 0, scale = 1;

	if (*s < '0' || *s > '9')
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (v > (UINT64_MAX - 9) / 10)
			return false;
		v = v * 10 + (uint64_t)(*s - '0');
	}
	if (scale_limit > 1 && *s != '\0') {
		scale = *s == 'K' ? 1ull << 10 : *s == 'M' ? 1ull << 20 : *s == 'G' ? 1ull << 30 : 0;
		s++;
	}
	if (*s != '\0' || scale == 0 || v > UINT64_MAX / scale)
		return false;
	*out = v * scale;
	return true;
}

static bool word_index(const char *words, const char *value, uint32_t *out)
{
	size_t len = strlen(value);

	for (uint32_t i = 0; *words != '\0'; i++) {
		size_t n = strcspn(words, " ");

		if (n == len && memcmp(words, value, n) == 0) {
			*out = i;
			return true;
		}
		words += n + (words[n] == ' ');
	}
	return false;
}

static bool parse_bool(const char *v, bool *out)
{
	uint32_t idx;

	if (!word_index("no false off yes true on", v, &idx))
		return false;
	*out = idx >= 3;
	return true;
}

static bool set_value(const struct ctl_conf_key *k, const struct ctl_conf_item *it, char *base, char *err, size_t err_bytes)
{
	uint64_t number;
	uint32_t word;

	switch (k->type) {
	case CTL_CONF_TEXT:
		if (strlen(it->value) < k->min || strlen(it->value) >= k->max) {
			snprintf(err, err_bytes, "%s wants %llu to %llu characters", k->key, (unsigned long long)k->min,
				 (unsigned long long)k->max - 1);
			return false;
		}
		strcpy(base + k->offset, it->value);
		return true;
	case CTL_CONF_BOOL:
		if (parse_bool(it->value, (bool *)(base + k->offset)))
			return true;
		snprintf(err, err_bytes, "%s wants yes or no, not '%.60s'", k->key, it->value);
		return false;
	case CTL_CONF_UINT:
	case CTL_CONF_BYTES:
		if (!parse_number(it->value, k->type == CTL_CONF_BYTES ? 1024 : 1, &number) || number < k->min || number > k->max) {
			snprintf(err, err_bytes, "%s wants a number from %llu to %llu%s, not '%.60s'", k->key,
				 (unsigned long long)k->min, (unsigned long long)k->max,
				 k->type == CTL_CONF_BYTES ? " (K, M or G may follow)" : "", it->value);
			return false;
		}
		if (k->type == CTL_CONF_BYTES)
			memcpy(base + k->offset, &number, sizeof number);
		else
			*(uint32_t *)(void *)(base + k->offset) = (uint32_t)number;
		return true;
	case CTL_CONF_WORD:
		if (word_index(k->words, it->value, &word)) {
			*(uint32_t *)(void *)(base + k->offset) = word;
			return true;
		}
		snprintf(err, err_bytes, "%s wants one of: %s; not '%.60s'", k->key, k->words, it->value);
		return false;
	case CTL_CONF_ITEM:
		return k->item(base, it, err, err_bytes);
	case CTL_CONF_FOREIGN:
		break;
	}
	return true;
}

static bool apply_item(const struct ctl_conf_item *it, const struct ctl_conf_key *keys, size_t count, void *out, char *err,
		       size_t err_bytes)
{
	bool section_known = false, named = false;
	char known[512];

	for (size_t i = 0; i < count; i++) {
		if (strcmp(keys[i].section, it->section) != 0)
			continue;
		section_known = true;
		named |= keys[i].key != NULL && *keys[i].key == '\0';
		if (keys[i].type == CTL_CONF_FOREIGN)
			return true;
		if (strcmp(keys[i].key, it->key) == 0)
			return set_value(&keys[i], it, out, err, err_bytes);
	}
	list_known(keys, count, section_known ? it->section : NULL, known, sizeof known);
	if (section_known && *it->key == '\0' && *it->name != '\0' && !named) {
		snprintf(err, err_bytes, "section [%s] takes no name; write [%s]", it->section, it->section);
		return false;
	}
	if (section_known && *it->key == '\0')
		return true;
	if (section_known && known[0] == '\0')
		snprintf(err, err_bytes, "unknown key '%.60s' in [%s]; the section knows no keys: remove it", it->key, it->section);
	else if (section_known)
		snprintf(err, err_bytes, "unknown key '%.60s' in [%s]; it knows: %s", it->key, it->section, known);
	else
		snprintf(err, err_bytes, "unknown section [%.60s]; there are: %s", it->section, known);
	return false;
}

bool ctl_conf_apply(const struct ctl_conf *c, const struct ctl_conf_key *keys, size_t keys_count, void *out, char *err,
		    size_t err_bytes)
{
	char why[768];

	for (size_t i = 0; i < c->count; i++)
		if (!apply_item(&c->items[i], keys, keys_count, out, why, sizeof why)) {
			snprintf(err, err_bytes, "%s:%u: %s", c->path, c->items[i].line, why);
			return false;
		}
	return true;
}

bool ctl_conf_list_next(const char **at, char *out, size_t out_bytes, bool *too_long)
{
	const char *s = *at;
	size_t n;

	*too_long = false;
	s += strspn(s, ", \t");
	n = strcspn(s, ", \t");
	*at = s + n;
	if (n == 0)
		return false;
	if (n >= out_bytes) {
		*too_long = true;
		return false;
	}
	memcpy(out, s, n);
	out[n] = '\0';
	return true;
}
