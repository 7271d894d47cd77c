/*
 * log.h - control's log: one line a message, with a time and a level, never a secret.
 *
 * Owns: the descriptor that lines go to.
 * Core: the control process and its compile thread; a line is one write().
 * Spec: our own.
 */
#ifndef TICKWIRE_CTL_LOG_H
#define TICKWIRE_CTL_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum ctl_log_level { CTL_LOG_DEBUG, CTL_LOG_INFO, CTL_LOG_WARNING, CTL_LOG_ERROR };
#define CTL_LOG_WORDS "debug info warning error"

/* `path` empty: standard error. Errors: false and errno. */
bool ctl_log_open(const char *path);
void ctl_log_set_level(enum ctl_log_level level);
/* What a peer chose is printed through the caller's format; octets that are not printable become '?'. */
void ctl_log(enum ctl_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
