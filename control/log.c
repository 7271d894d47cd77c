/*
 * log.c - writes log lines.
 *
 * Owns: the log's descriptor and level.
 * Core: the control process; any of its threads.
 * Spec: our own.
 */
#include "control/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int log_fd = STDERR_FILENO;
static _Atomic int log_level = CTL_LOG_INFO;

bool ctl_log_open(const char *path)
{
	int fd;

	if (*path == '\0')
		return true;
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (fd < 0)
		return false;
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
	return true;
}

void ctl_log_set_level(enum ctl_log_level level)
{
	atomic_store(&log_level, (int)level);
}

void ctl_log(enum ctl_log_level level, const char *fmt, ...)
{
	static const char *const words[] = {"debug", "info", "warning", "error"};
	char line[1024];
	struct timespec now;
	struct tm tm;
	size_t len;
	va_list ap;
	int n;

	if ((int)level < atomic_load(&log_level))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	len = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
	len += (size_t)snprintf(line + len, sizeof line - len, ".%03ldZ [%s] ", now.tv_nsec / 1000000, words[level]);
	va_start(ap, fmt);
	n = vsnprintf(line + len, sizeof line - len - 1, fmt, ap);
	va_end(ap);
	len = n < 0 ? len : len + (size_t)n < sizeof line - 2 ? len + (size_t)n : sizeof line - 2;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	/* A log that cannot be written must not stop the process that it tells about. */
	if (write(log_fd, line, len) < 0)
		return;
}
