/*
 * access.h - users: their passwords, tags and vhosts, and the answer to a log-in.
 *
 * Owns: the users of the configuration, as hashes.
 * Core: control's event loop, start-up and reload.
 * Spec: SASL PLAIN (RFC 4616) and AMQPLAIN; RabbitMQ's password hash: base64(salt || SHA-256(salt || password)), salt 4 octets.
 */
#ifndef TICKWIRE_CTL_ACCESS_H
#define TICKWIRE_CTL_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "amqp/records.h"

#define CTL_SALT_BYTES      4u
#define CTL_HASH_BYTES      36u /* salt and digest */
#define CTL_HASH_TEXT_BYTES 49u /* its base64, terminated */
#define CTL_USERS_MAX       1024u

struct ctl_user {
	char name[256], tags[256], vhosts[1024]; /* lists as they were written; vhosts "*": all */
	uint8_t hash[CTL_HASH_BYTES];
	bool has_password;
};
struct ctl_users {
	struct ctl_user *user;
	uint32_t count;
};
void ctl_users_free(struct ctl_users *u);
struct ctl_user *ctl_users_find(const struct ctl_users *u, struct amqp_span name);
/* The user of that name, made when it is not there. NULL: too many, or the name is too long. */
struct ctl_user *ctl_users_get(struct ctl_users *u, const char *name);

/* Hashes with the given salt. */
void ctl_password_hash(const void *password, size_t len, const uint8_t salt[CTL_SALT_BYTES], uint8_t out[CTL_HASH_BYTES]);
void ctl_password_text(const uint8_t hash[CTL_HASH_BYTES], char out[CTL_HASH_TEXT_BYTES]);
bool ctl_password_parse(const char *text, uint8_t out[CTL_HASH_BYTES]);
/* In constant time for one length of password. */
bool ctl_password_matches(const uint8_t hash[CTL_HASH_BYTES], const void *password, size_t len);
/* Random octets of the system. False: there are none. */
bool ctl_random(void *out, size_t bytes);

/*
 * Who logs in with this SASL response? NULL: refused, with a word for the log in *why (never the password). `claimed` is the name
 * that was given, a span of the response.
 */
const struct ctl_user *ctl_users_login(const struct ctl_users *u, struct amqp_span mechanism, struct amqp_span response,
				       struct amqp_span *claimed, const char **why);
bool ctl_user_may_open(const struct ctl_user *u, struct amqp_span vhost);

#endif
