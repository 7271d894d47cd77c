/*
 * access.c - password hashes and SASL responses.
 *
 * Owns: no state; users are handed in.
 * Core: control's event loop.
 * Spec: RFC 4616 (PLAIN); AMQPLAIN is a field table with LOGIN and PASSWORD; RabbitMQ's password hash.
 */
#include "control/access.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "amqp/table.h"
#include "control/conf.h"
#include "control/map.h"

void ctl_users_free(struct ctl_users *u)
{
	free(u->user);
	memset(u, 0, sizeof *u);
}

struct ctl_user *ctl_users_find(const struct ctl_users *u, struct amqp_span name)
{
	for (uint32_t i = 0; i < u->count; i++)
		if (ctl_span_is(name, u->user[i].name))
			return &u->user[i];
	return NULL;
}

struct ctl_user *ctl_users_get(struct ctl_users *u, const char *name)
{
	struct ctl_user *found = ctl_users_find(u, ctl_span(name));

	if (found != NULL)
		return found;
	if (u->count == CTL_USERS_MAX || strlen(name) >= sizeof found->name)
		return NULL;
	u->user = ctl_resize(u->user, (u->count + 1) * sizeof u->user[0]);
	found = &u->user[u->count++];
	memset(found, 0, sizeof *found);
	strcpy(found->name, name);
	strcpy(found->vhosts, "/");
	return found;
}

void ctl_password_hash(const void *password, size_t len, const uint8_t salt[CTL_SALT_BYTES], uint8_t out[CTL_HASH_BYTES])
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
		  EVP_DigestUpdate(ctx, salt, CTL_SALT_BYTES) == 1 && EVP_DigestUpdate(ctx, password, len) == 1 &&
		  EVP_DigestFinal_ex(ctx, out + CTL_SALT_BYTES, NULL) == 1;

	EVP_MD_CTX_free(ctx);
	memmove(out, salt, CTL_SALT_BYTES);
	if (!ok)
		abort(); /* SHA-256 fails only without memory, and a hash that is not one would let people in */
}

void ctl_password_text(const uint8_t hash[CTL_HASH_BYTES], char out[CTL_HASH_TEXT_BYTES])
{
	EVP_EncodeBlock((unsigned char *)out, hash, CTL_HASH_BYTES);
}

bool ctl_password_parse(const char *text, uint8_t out[CTL_HASH_BYTES])
{
	uint8_t buf[CTL_HASH_BYTES + 3];

	if (strlen(text) != CTL_HASH_TEXT_BYTES - 1 ||
	    EVP_DecodeBlock(buf, (const unsigned char *)text, (int)strlen(text)) != (int)CTL_HASH_BYTES)
		return false;
	memcpy(out, buf, CTL_HASH_BYTES);
	return strchr(text, '=') == NULL;
}

bool ctl_password_matches(const uint8_t hash[CTL_HASH_BYTES], const void *password, size_t len)
{
	uint8_t own[CTL_HASH_BYTES];

	ctl_password_hash(password, len, hash, own);
	return CRYPTO_memcmp(own, hash, CTL_HASH_BYTES) == 0;
}

bool ctl_random(void *out, size_t bytes)
{
	uint8_t *p = out;

	while (bytes > 0) {
		ssize_t n = getrandom(p, bytes, 0);

		if (n <= 0)
			return false;
		p += n;
		bytes -= (size_t)n;
	}
	return true;
}

/* PLAIN: authorisation identity NUL authentication identity NUL password. */
static bool parse_plain(struct amqp_span r, struct amqp_span *name, struct amqp_span *password)
{
	const uint8_t *first = r.len != 0 ? memchr(r.ptr, 0, r.len) : NULL, *second, *end = r.ptr + r.len;

	if (first == NULL)
		return false;
	second = memchr(first + 1, 0, (size_t)(end - first) - 1);
	if (second == NULL)
		return false;
	*name = (struct amqp_span){first + 1, (uint32_t)(second - first - 1)};
	*password = (struct amqp_span){second + 1, (uint32_t)(end - second - 1)};
	return true;
}

static bool parse_amqplain(struct amqp_span r, struct amqp_span *name, struct amqp_span *password)
{
	struct amqp_field login, secret;

	if (amqp_table_check(r.ptr, r.len, NULL) != 0 || !amqp_table_find(r.ptr, r.len, "LOGIN", &login) ||
	    !amqp_table_find(r.ptr, r.len, "PASSWORD", &secret) || !amqp_field_is_text(&login) || !amqp_field_is_text(&secret))
		return false;
	*name = login.value;
	*password = secret.value;
	return true;
}

const struct ctl_user *ctl_users_login(const struct ctl_users *u, struct amqp_span mechanism, struct amqp_span response,
				       struct amqp_span *claimed, const char **why)
{
	static const uint8_t nobody[CTL_HASH_BYTES];
	struct amqp_span password = {NULL, 0};
	const struct ctl_user *user;
	bool plain = ctl_span_is(mechanism, "PLAIN");

	*claimed = (struct amqp_span){NULL, 0};
	if (!plain && !ctl_span_is(mechanism, "AMQPLAIN")) {
		*why = "unknown mechanism";
		return NULL;
	}
	if (!(plain ? parse_plain(response, claimed, &password) : parse_amqplain(response, claimed, &password))) {
		*why = "malformed response";
		return NULL;
	}
	user = ctl_users_find(u, *claimed);
	/* An unknown name costs a hash as well, so that time does not tell which names exist. */
	if (!ctl_password_matches(user != NULL && user->has_password ? user->hash : nobody,
				  password.ptr != NULL ? password.ptr : nobody, password.len) ||
	    user == NULL || !user->has_password) {
		*why = user == NULL ? "unknown user" : "wrong password";
		return NULL;
	}
	return user;
}

bool ctl_user_may_open(const struct ctl_user *u, struct amqp_span vhost)
{
	const char *at = u->vhosts;
	char word[256];
	bool too_long;

	while (ctl_conf_list_next(&at, word, sizeof word, &too_long))
		if (strcmp(word, "*") == 0 || ctl_span_is(vhost, word))
			return true;
	return false;
}
