/* What a whole invocation has measured, and the forms in which it is told: text, JSON, .hgrm, SVG.
 * Runs inside tickbench after the measuring is over.
 * Specification: none; the JSON keys are described in README.md beside this file. */
#ifndef TICKBENCH_REPORT_H
#define TICKBENCH_REPORT_H

#include "tools/tickbench/findmax.h"
#include "tools/tickbench/options.h"

#define TB_ENTRIES_MAX (TB_TYPE_COUNT * 2)

struct tb_echo_result {
	struct tb_hist round_trip;
	struct tb_hist lateness;
	uint64_t sent_count;
	uint64_t received_count;
	uint64_t unsent_count; /* due, but not sent: the socket was full */
	bool done;
	bool interrupted;
	enum tb_exit status;
	char error[400];
};

struct tb_entry {
	char side; /* 'A', or 'B' for --vs */
	struct tb_load load;
	struct tb_result result;
	struct tb_findmax findmax; /* --find-max: result is that of the best rate */
};

struct tb_report {
	const struct tb_options *options;
	struct tb_echo_result echo;
	struct tb_entry *entries[TB_ENTRIES_MAX];
	uint32_t entry_count;
};

/* The percentiles that every report names. */
#define TB_QUANTILES 6
struct tb_quantile {
	const char *name;
	const char *json;
	uint32_t ppm;
};
extern const struct tb_quantile tb_quantiles[TB_QUANTILES];

/* The entry of the other side with the same exchange type, or NULL. */
const struct tb_entry *tb_report_counterpart(const struct tb_report *r, const struct tb_entry *e);

/* "RabbitMQ 3.10.8 at 127.0.0.1:5672", as far as it is known. */
void tb_entry_label(const struct tb_entry *e, char *out, size_t size);

void tb_report_text(const struct tb_report *r, FILE *out);
void tb_report_json(const struct tb_report *r, FILE *out);
void tb_report_svg(const struct tb_report *r, FILE *out);
/* An ASCII drawing of a histogram, rows in steps of a quarter of an octave. */
void tb_draw_histogram(const struct tb_hist *h, FILE *out);

/* Measures the UDP echo: same schedule, same kind of histogram; adds to what r holds. Blocks until done. */
void tb_echo_run(const struct tb_load *load, const struct tb_endpoint *peer, struct tb_echo_result *r);

#endif
