/*
 * log.c - the dataplane's words to its operator.
 *
 * Owns: the log level and the one way to stderr.
 * Core: the main thread alone; a worker never logs, it counts.
 * Spec: none of a protocol; under systemd (JOURNAL_STREAM) lines carry the sd-daemon(3) priority prefix.
 */
#include "dataplane/log.h"

#include <stdarg.h>
#include <stdio.h>

static enum dp_log_level log_level = DP_LOG_INFO;
static int log_journal;

static const struct {
	const char *word;
	int priority;
} levels[] = {
	[DP_LOG_ERROR] = {"error: ", 3},
	[DP_LOG_WARNING] = {"warning: ", 4},
	[DP_LOG_INFO] = {"", 6},
	[DP_LOG_DEBUG] = {"debug: ", 7},
};

void dp_log_init(enum dp_log_level level, int journal)
{
	log_level = level;
	log_journal = journal;
}

void dp_log(enum dp_log_level level, const char *format, ...)
{
	char line[1024];
	va_list args;

	if (level > log_level)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	/* One call a line: lines of the DPDK's own threads then do not cut through ours. */
	if (log_journal)
		fprintf(stderr, "<%d>%s\n", levels[level].priority, line);
	else
		fprintf(stderr, "tickwire-dataplane: %s%s\n", levels[level].word, line);
}
