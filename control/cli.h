/*
 * cli.h - the server that tickctl talks to.
 *
 * Owns: the CLI socket and its clients.
 * Core: control's event loop.
 * Spec: control/ctl_proto.h.
 */
#ifndef TICKWIRE_CTL_CLI_H
#define TICKWIRE_CTL_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "control/control.h"

struct ctl_cli;

/* Errors: NULL and a sentence. */
struct ctl_cli *ctl_cli_new(struct ctl_control *c, const char *path, char *err, size_t err_bytes);
void ctl_cli_free(struct ctl_cli *cli);

/* The answer to one request (a new reference). */
json_t *ctl_cli_answer(struct ctl_control *c, json_t *request);

/* lists.c: {"rows": […]}; vhost NULL: all of them. */
json_t *ctl_list_queues(struct ctl_control *c, const struct ctl_vhost *v);
json_t *ctl_list_exchanges(struct ctl_control *c, const struct ctl_vhost *v);
json_t *ctl_list_bindings(struct ctl_control *c, const struct ctl_vhost *v);
json_t *ctl_list_connections(struct ctl_control *c);
json_t *ctl_list_channels(struct ctl_control *c);
json_t *ctl_list_consumers(struct ctl_control *c, const struct ctl_vhost *v);
json_t *ctl_list_vhosts(struct ctl_control *c);
json_t *ctl_list_users(struct ctl_control *c);
/* The connections of that pid or name (all of a vhost; id and vhost NULL: all) are to be closed; returns how many. */
unsigned ctl_close_connections(struct ctl_control *c, const char *id, const char *vhost, const char *reason);

/* stats.c */
json_t *ctl_show_status(struct ctl_control *c);
json_t *ctl_show_stats(struct ctl_control *c);
json_t *ctl_show_matcher(struct ctl_control *c, const struct ctl_vhost *v);

/* Text that is valid UTF-8 whatever it was. */
json_t *ctl_json_span(struct amqp_span s);
json_t *ctl_json_text(const char *text, size_t cap); /* a field that may lack its terminator */
json_t *ctl_json_table(struct amqp_span table);

#endif
