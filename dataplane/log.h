/*
 * log.h - the dataplane's words to its operator.
 *
 * Owns: the log level and the one way to stderr.
 * Core: the main thread alone; a worker never logs, it counts.
 * Spec: none of a protocol; under systemd (JOURNAL_STREAM) lines carry the sd-daemon(3) priority prefix.
 */
#ifndef TICKWIRE_DP_LOG_H
#define TICKWIRE_DP_LOG_H

enum dp_log_level { DP_LOG_ERROR, DP_LOG_WARNING, DP_LOG_INFO, DP_LOG_DEBUG };

/* Lines above `level` are not printed; `journal` puts the priority in front of each. */
void dp_log_init(enum dp_log_level level, int journal);
void dp_log(enum dp_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
