/*
 * options.c - the table of control's configuration keys.
 *
 * Owns: nothing.
 * Core: start-up and reload.
 * Spec: control/README.md; nobody is let in who is not named: there is no user but those of the file, guest included.
 */
#include "control/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/conf.h"
#include "control/log.h"
#include "control/map.h"

static bool wrong(char *err, size_t err_bytes, const char *sentence)
{
	snprintf(err, err_bytes, "%s", sentence);
	return false;
}

static struct ctl_user *user_of(struct ctl_options *o, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	struct ctl_user *u = *it->name != '\0' ? ctl_users_get(&o->users, it->name) : NULL;

	if (u == NULL)
		wrong(err, err_bytes,
		      *it->name == '\0' ? "a [user] section wants a name; write [user NAME]"
					: "too many users, or too long a name");
	return u;
}

static bool user_section(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	return user_of(out, it, err, err_bytes) != NULL;
}

static bool user_password(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	struct ctl_user *u = user_of(out, it, err, err_bytes);
	uint8_t salt[CTL_SALT_BYTES];

	if (u == NULL)
		return false;
	if (u->has_password)
		return wrong(err, err_bytes, "the user has both password and password_hash; keep password_hash");
	if (*it->value == '\0')
		return wrong(err, err_bytes,
			     "the password is empty; give one, or leave the key out to keep the user from logging in");
	if (!ctl_random(salt, sizeof salt))
		return wrong(err, err_bytes, "the system gives no random octets");
	ctl_password_hash(it->value, strlen(it->value), salt, u->hash);
	u->has_password = true;
	return true;
}

static bool user_hash(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	struct ctl_user *u = user_of(out, it, err, err_bytes);

	if (u == NULL)
		return false;
	if (u->has_password)
		return wrong(err, err_bytes, "the user has both password and password_hash; keep password_hash");
	if (!ctl_password_parse(it->value, u->hash))
		return wrong(err, err_bytes, "password_hash is not 48 characters of base64; make one with: tickctl hash_password");
	u->has_password = true;
	return true;
}

static bool user_text(char *to, size_t to_bytes, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	const char *at = it->value;
	char word[256];
	bool too_long;

	while (ctl_conf_list_next(&at, word, sizeof word, &too_long))
		continue;
	if (too_long || strlen(it->value) >= to_bytes)
		return wrong(err, err_bytes, "the list, or a word in it, is too long");
	strcpy(to, it->value);
	return true;
}

static bool user_tags(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	struct ctl_user *u = user_of(out, it, err, err_bytes);

	return u != NULL && user_text(u->tags, sizeof u->tags, it, err, err_bytes);
}

static bool user_vhosts(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	struct ctl_user *u = user_of(out, it, err, err_bytes);

	return u != NULL && user_text(u->vhosts, sizeof u->vhosts, it, err, err_bytes);
}

static bool add_vhost(struct ctl_options *o, const char *name, char *err, size_t err_bytes)
{
	for (uint32_t i = 0; i < o->vhosts_count; i++)
		if (strcmp(o->vhost[i], name) == 0)
			return true;
	if (o->vhosts_count == CTL_VHOSTS_MAX || strlen(name) >= sizeof o->vhost[0])
		return wrong(err, err_bytes, "too many vhosts, or too long a name");
	o->vhost = ctl_resize(o->vhost, (o->vhosts_count + 1) * sizeof o->vhost[0]);
	strcpy(o->vhost[o->vhosts_count++], name);
	return true;
}

static bool vhost_section(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	if (*it->name == '\0')
		return wrong(err, err_bytes, "a [vhost] section wants a name; write [vhost NAME]");
	return add_vhost(out, it->name, err, err_bytes);
}

#define TEXT_KEY(field)                                                                                                            \
	{                                                                                                                          \
		"control", #field, CTL_CONF_TEXT, offsetof(struct ctl_options, field), 0,                                          \
			sizeof(((struct ctl_options *)0)->field), NULL, NULL                                                       \
	}
#define UINT_KEY(field, least, most)                                                                                               \
	{                                                                                                                          \
		"control", #field, CTL_CONF_UINT, offsetof(struct ctl_options, field), least, most, NULL, NULL                     \
	}

static const struct ctl_conf_key keys[] = {
	TEXT_KEY(dataplane_socket),
	TEXT_KEY(cli_socket),
	TEXT_KEY(data_dir),
	TEXT_KEY(log_file),
	{"control", "log_level", CTL_CONF_WORD, offsetof(struct ctl_options, log_level), 0, 0, CTL_LOG_WORDS, NULL},
	{"control", "store_bytes", CTL_CONF_BYTES, offsetof(struct ctl_options, store_bytes), 1u << 20, 1ull << 40, NULL, NULL},
	{"control", "store_sync", CTL_CONF_BOOL, offsetof(struct ctl_options, store_sync), 0, 0, NULL, NULL},
	UINT_KEY(hyperscan_min_rules, 1, 1000000),
	UINT_KEY(compile_settle_ms, 0, 60000),
	UINT_KEY(compile_wait_max_ms, 0, 600000),
	{"user", "", CTL_CONF_ITEM, 0, 0, 0, NULL, user_section},
	{"user", "password", CTL_CONF_ITEM, 0, 0, 0, NULL, user_password},
	{"user", "password_hash", CTL_CONF_ITEM, 0, 0, 0, NULL, user_hash},
	{"user", "tags", CTL_CONF_ITEM, 0, 0, 0, NULL, user_tags},
	{"user", "vhosts", CTL_CONF_ITEM, 0, 0, 0, NULL, user_vhosts},
	{"vhost", "", CTL_CONF_ITEM, 0, 0, 0, NULL, vhost_section},
	{"dataplane", NULL, CTL_CONF_FOREIGN, 0, 0, 0, NULL, NULL},
};

static bool vhosts_exist(const struct ctl_options *o, const char *path, char *err, size_t err_bytes)
{
	for (uint32_t i = 0; i < o->users.count; i++) {
		const char *at = o->users.user[i].vhosts;
		char word[256];
		bool too_long, known;

		while (ctl_conf_list_next(&at, word, sizeof word, &too_long)) {
			known = strcmp(word, "*") == 0;
			for (uint32_t v = 0; v < o->vhosts_count; v++)
				known |= strcmp(o->vhost[v], word) == 0;
			if (!known) {
				snprintf(err, err_bytes, "%s: user %s names vhost %s, which there is not; add a section [vhost %s]",
					 path, o->users.user[i].name, word, word);
				return false;
			}
		}
	}
	return true;
}

static bool times_agree(const struct ctl_options *o, const char *path, char *err, size_t err_bytes)
{
	if (o->compile_settle_ms <= o->compile_wait_max_ms)
		return true;
	snprintf(err, err_bytes,
		 "%s: compile_settle_ms (%u) is more than compile_wait_max_ms (%u), so that it would never count; lower the one or "
		 "raise the other",
		 path, o->compile_settle_ms, o->compile_wait_max_ms);
	return false;
}

bool ctl_options_load(struct ctl_options *o, const char *path, char *err, size_t err_bytes)
{
	struct ctl_conf conf;
	bool ok;

	memset(o, 0, sizeof *o);
	strcpy(o->dataplane_socket, "/run/tickwire/dataplane.sock");
	strcpy(o->cli_socket, "/run/tickwire/control.sock");
	strcpy(o->data_dir, "/var/lib/tickwire");
	o->log_level = CTL_LOG_INFO;
	o->store_bytes = 1ull << 30;
	o->store_sync = true;
	o->hyperscan_min_rules = 1;
	o->compile_settle_ms = 150;
	o->compile_wait_max_ms = 2000;
	if (!ctl_conf_load(&conf, path, err, err_bytes))
		return false;
	ok = add_vhost(o, "/", err, err_bytes) && ctl_conf_apply(&conf, keys, sizeof keys / sizeof keys[0], o, err, err_bytes) &&
	     vhosts_exist(o, path, err, err_bytes) && times_agree(o, path, err, err_bytes);
	ctl_conf_free(&conf);
	if (!ok)
		ctl_options_free(o);
	return ok;
}

void ctl_options_free(struct ctl_options *o)
{
	ctl_users_free(&o->users);
	free(o->vhost);
	o->vhost = NULL;
	o->vhosts_count = 0;
}
