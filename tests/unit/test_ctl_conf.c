/*
 * test_ctl_conf.c - the configuration reader, and what control makes of users, vhosts and passwords.
 *
 * Owns: temporary files of its own.
 * Core: a cmocka program.
 * Spec: control/conf.h, control/options.h, control/access.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/access.h"
#include "control/conf.h"
#include "control/options.h"

struct target {
	char path[16];
	bool flag;
	uint32_t count, level;
	uint64_t size;
	unsigned named;
};

static bool named(void *out, const struct ctl_conf_item *it, char *err, size_t err_bytes)
{
	if (strcmp(it->value, "bad") == 0) {
		snprintf(err, err_bytes, "the value is bad");
		return false;
	}
	((struct target *)out)->named += strcmp(it->name, "some one") == 0;
	return true;
}

static const struct ctl_conf_key keys[] = {
	{"a", "path", CTL_CONF_TEXT, offsetof(struct target, path), 1, 16, NULL, NULL},
	{"a", "flag", CTL_CONF_BOOL, offsetof(struct target, flag), 0, 0, NULL, NULL},
	{"a", "count", CTL_CONF_UINT, offsetof(struct target, count), 1, 100, NULL, NULL},
	{"a", "size", CTL_CONF_BYTES, offsetof(struct target, size), 0, 1ull << 40, NULL, NULL},
	{"a", "level", CTL_CONF_WORD, offsetof(struct target, level), 0, 0, "low mid high", NULL},
	{"n", "", CTL_CONF_ITEM, 0, 0, 0, NULL, named},
	{"n", "key", CTL_CONF_ITEM, 0, 0, 0, NULL, named},
	{"other", NULL, CTL_CONF_FOREIGN, 0, 0, 0, NULL, NULL},
};

static bool load(const char *text, struct target *t, char err[256])
{
	struct ctl_conf c;
	bool ok;

	memset(t, 0, sizeof *t);
	err[0] = '\0';
	if (!ctl_conf_parse(&c, "f.conf", text, strlen(text), err, 256))
		return false;
	ok = ctl_conf_apply(&c, keys, sizeof keys / sizeof keys[0], t, err, 256);
	ctl_conf_free(&c);
	return ok;
}

static void values_of_every_type_are_read(void **state)
{
	struct target t;
	char err[256];

	(void)state;
	assert_true(load("# comment\n\n[a]\n path = \"a b#c\" # after\ncount=7\r\nflag = yes\nsize = 3M\nlevel = high # last\n"
			 "[n \"some one\"]\nkey = x\n[other]\nwhatever = 1\n",
			 &t, err));
	assert_string_equal(t.path, "a b#c");
	assert_true(t.flag && t.count == 7 && t.size == 3u << 20 && t.level == 2 && t.named == 2);
}

static void every_mistake_is_refused_with_its_line(void **state)
{
	static const struct {
		const char *text, *line, *word;
	} cases[] = {
		{"[a]\ncolour = 1\n", "f.conf:2:", "unknown key 'colour'"},
		{"[b]\n", "f.conf:1:", "unknown section [b]"},
		{"path = x\n", "f.conf:1:", "before the first [section]"},
		{"[a]\n\npath\n", "f.conf:3:", "neither a [section] nor key"},
		{"[a]\npath = \"x\n", "f.conf:2:", "no closing quote"},
		{"[a]\npath = \"x\" y\n", "f.conf:2:", "after the closing quote"},
		{"[a\n", "f.conf:1:", "no ']'"},
		{"[a]\ncount = 101\n", "f.conf:2:", "from 1 to 100"},
		{"[a]\ncount = 7x\n", "f.conf:2:", "'7x'"},
		{"[a]\ncount = -1\n", "f.conf:2:", "'-1'"},
		{"[a]\nsize = 99999999999999999999\n", "f.conf:2:", "size wants"},
		{"[a]\nflag = perhaps\n", "f.conf:2:", "yes or no"},
		{"[a]\nlevel = middle\n", "f.conf:2:", "low mid high"},
		{"[a]\npath = 0123456789abcdef\n", "f.conf:2:", "1 to 15 characters"},
		{"[a]\ncount = 1\ncount = 2\n", "f.conf:3:", "twice, first in line 2"},
		{"[a]\n[a]\n", "f.conf:2:", "twice"},
		{"[a name]\n", "f.conf:1:", "takes no name"},
		{"[n x]\nkey = bad\n", "f.conf:2:", "the value is bad"},
	};
	struct target t;
	char err[256];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_false(load(cases[i].text, &t, err));
		if (strncmp(err, cases[i].line, strlen(cases[i].line)) != 0 || strstr(err, cases[i].word) == NULL)
			fail_msg("case %zu: '%s' wants '%s' and '%s'", i, err, cases[i].line, cases[i].word);
	}
}

static void a_missing_file_is_named(void **state)
{
	struct ctl_conf c;
	char err[256];

	(void)state;
	assert_false(ctl_conf_load(&c, "/nonexistent/x.conf", err, sizeof err));
	assert_non_null(strstr(err, "/nonexistent/x.conf"));
}

/* ---- control's own options ---- */

static bool options_of(const char *text, struct ctl_options *o, char err[512])
{
	char path[] = "/tmp/ctl_conf_XXXXXX";
	int fd = mkstemp(path);
	bool ok;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	ok = ctl_options_load(o, path, err, 512);
	unlink(path);
	return ok;
}

static struct amqp_span span(const char *s)
{
	return (struct amqp_span){(const uint8_t *)s, (uint32_t)strlen(s)};
}

static void a_password_logs_in_and_every_other_does_not(void **state)
{
	struct amqp_span claimed, plain = span("PLAIN");
	struct ctl_options o;
	const char *why;
	char err[512];

	(void)state;
	assert_true(options_of("[user alice]\npassword = s3cret\nvhosts = /, two\n[vhost two]\n[user nologin]\n", &o, err));
	assert_non_null(
		ctl_users_login(&o.users, plain, (struct amqp_span){(const uint8_t *)"\0alice\0s3cret", 13}, &claimed, &why));
	assert_null(ctl_users_login(&o.users, plain, (struct amqp_span){(const uint8_t *)"\0alice\0s3creT", 13}, &claimed, &why));
	assert_string_equal(why, "wrong password");
	assert_null(ctl_users_login(&o.users, plain, (struct amqp_span){(const uint8_t *)"\0alice\0", 7}, &claimed, &why));
	assert_null(ctl_users_login(&o.users, plain, (struct amqp_span){(const uint8_t *)"\0guest\0guest", 12}, &claimed, &why));
	assert_string_equal(why, "unknown user"); /* guest is nobody unless the file names it */
	assert_null(ctl_users_login(&o.users, plain, (struct amqp_span){(const uint8_t *)"\0nologin\0", 9}, &claimed, &why));
	assert_null(ctl_users_login(&o.users, plain, span("alice"), &claimed, &why));
	assert_null(ctl_users_login(&o.users, plain, span(""), &claimed, &why));
	assert_null(ctl_users_login(&o.users, span("EXTERNAL"), span("alice"), &claimed, &why));
	assert_non_null(ctl_users_login(&o.users, span("AMQPLAIN"),
					(struct amqp_span){(const uint8_t *)"\5LOGINS\0\0\0\5alice\10PASSWORDS\0\0\0\6s3cret", 36},
					&claimed, &why));
	assert_true(ctl_user_may_open(ctl_users_find(&o.users, span("alice")), span("two")));
	assert_false(ctl_user_may_open(ctl_users_find(&o.users, span("alice")), span("three")));
	assert_false(ctl_user_may_open(ctl_users_find(&o.users, span("nologin")), span("two")));
	ctl_options_free(&o);
}

static void rabbitmqs_hash_of_a_password_is_understood(void **state)
{
	struct ctl_options o;
	struct amqp_span claimed;
	uint8_t hash[CTL_HASH_BYTES];
	char text[CTL_HASH_TEXT_BYTES], conf[256], err[512];
	const char *why;

	(void)state;
	/* salt 908DC60A, password test12: the example of RabbitMQ's documentation of the algorithm */
	ctl_password_hash("test12", 6, (const uint8_t *)"\x90\x8d\xc6\x0a", hash);
	ctl_password_text(hash, text);
	assert_string_equal(text, "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
	snprintf(conf, sizeof conf, "[user bob]\npassword_hash = %s\n", text);
	assert_true(options_of(conf, &o, err));
	assert_non_null(
		ctl_users_login(&o.users, span("PLAIN"), (struct amqp_span){(const uint8_t *)"\0bob\0test12", 11}, &claimed, &why));
	assert_null(
		ctl_users_login(&o.users, span("PLAIN"), (struct amqp_span){(const uint8_t *)"\0bob\0test13", 11}, &claimed, &why));
	ctl_options_free(&o);
}

static void users_that_contradict_themselves_are_refused(void **state)
{
	static const char *const cases[] = {"[user]\npassword = x\n",
					    "[user a]\npassword = x\npassword_hash = y\n",
					    "[user a]\npassword =\n",
					    "[user a]\npassword_hash = short\n",
					    "[user a]\nvhosts = nowhere\n",
					    "[user a]\nfoo = 1\n",
					    "[vhost]\n",
					    "[control]\nlog_level = loud\n"};
	struct ctl_options o;
	char err[512];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		if (options_of(cases[i], &o, err))
			fail_msg("accepted: %s", cases[i]);
}

static void options_that_cannot_both_hold_are_refused_and_say_so(void **state)
{
	struct ctl_options o;
	char err[512];

	(void)state;
	assert_false(options_of("[control]\ncompile_settle_ms = 500\ncompile_wait_max_ms = 499\n", &o, err));
	assert_non_null(strstr(err, "compile_settle_ms (500) is more than compile_wait_max_ms (499)"));
	assert_true(options_of("[control]\ncompile_settle_ms = 500\ncompile_wait_max_ms = 500\n", &o, err));
	ctl_options_free(&o);
	assert_false(options_of("[vhost a]\ncolour = 1\n", &o, err));
	assert_non_null(strstr(err, ":2: unknown key 'colour' in [vhost]; the section knows no keys"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_of_every_type_are_read),
		cmocka_unit_test(every_mistake_is_refused_with_its_line),
		cmocka_unit_test(a_missing_file_is_named),
		cmocka_unit_test(a_password_logs_in_and_every_other_does_not),
		cmocka_unit_test(rabbitmqs_hash_of_a_password_is_understood),
		cmocka_unit_test(users_that_contradict_themselves_are_refused),
		cmocka_unit_test(options_that_cannot_both_hold_are_refused_and_say_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
