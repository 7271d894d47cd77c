/*
 * tickctl.h - the command line client: what its files share.
 *
 * Owns: the options of one run.
 * Core: a short-lived process of its own.
 * Spec: rabbitmqctl's verbs, columns, output forms and exit statuses; control/ctl_proto.h to control.
 */
#ifndef TICKWIRE_TICKCTL_H
#define TICKWIRE_TICKCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

enum tickctl_format { TICKCTL_TABLE, TICKCTL_PRETTY, TICKCTL_JSON, TICKCTL_CSV };

struct tickctl_options {
	const char *socket, *vhost;
	enum tickctl_format format;
	bool quiet, silent, no_headers, all, watch, if_empty, if_unused;
	bool vhost_given, help, mute; /* mute: no sentences about failures */
	double timeout_s;             /* 0: for ever */
	double watch_s;
	const char *args[64];
	int args_count;
};

/* tickctl_client.c. Sends a request (which it takes) and returns the result; prints the sentence of a failure. */
struct tickctl_client {
	int fd;
	char *buf;
	size_t len, cap;
};
/* 0, or an exit status with a sentence on standard error. */
int tickctl_connect(struct tickctl_client *c, const struct tickctl_options *o);
int tickctl_ask(struct tickctl_client *c, const struct tickctl_options *o, json_t *request, json_t **result);
void tickctl_close(struct tickctl_client *c);

/* tickctl_table.c */
void tickctl_print_rows(FILE *out, const json_t *rows, const char *const *columns, size_t columns_count, enum tickctl_format format,
			bool headers);
/* A value as one cell of text; free() it. */
char *tickctl_cell(const json_t *value);

/* tickctl_show.c. Buckets are pairs [upper bound in ns, count] in rising order. */
uint64_t tickctl_percentile(const json_t *buckets, uint64_t count, double q);
/* One list of the histograms of all workers, merged by name. */
json_t *tickctl_merge_stages(const json_t *stats);
int tickctl_status(struct tickctl_client *c, const struct tickctl_options *o);
int tickctl_stats(struct tickctl_client *c, const struct tickctl_options *o);
int tickctl_latency(struct tickctl_client *c, const struct tickctl_options *o);

#endif
