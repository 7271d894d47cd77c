/* tickbench: runs the loads that the command line asks for, one after another, and writes the reports.
 * Runs as a program of its own, the client of the broker under test.
 * Specification: exit statuses of sysexits.h. */
#include "tools/tickbench/clock.h"
#include "tools/tickbench/report.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SPARE_FILES 32

static void on_signal(int number)
{
	tb_stop_signal = number;
}

static void catch_signals(void)
{
	struct sigaction stop = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};

	/* A second Ctrl-C ends at once, whatever is being waited for. */
	stop.sa_flags = (int)SA_RESETHAND;
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
}

static bool raise_file_limit(uint32_t wanted)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return false;
	if (limit.rlim_cur >= wanted)
		return true;
	if (limit.rlim_max < wanted)
		return false;
	limit.rlim_cur = wanted;
	return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static struct tb_entry *add_entry(struct tb_report *rep, char side, enum tb_type type)
{
	struct tb_entry *e = calloc(1, sizeof(*e));

	if (!e || !tb_result_init(&e->result)) {
		fprintf(stderr, "tickbench: out of memory.\n");
		exit(TB_EXIT_OSERR);
	}
	e->side = side;
	e->load = rep->options->load;
	e->load.type = type;
	if (side == 'B')
		e->load.broker = rep->options->vs;
	rep->entries[rep->entry_count++] = e;
	return e;
}

/* Runs --before. Errors: false when the command fails: figures taken under other conditions than asked for are none. */
static bool prepare(const struct tb_options *o, const char *subject, enum tb_exit *status, char *error, size_t error_size)
{
	char command[4100];

	if (!o->before)
		return true;
	snprintf(command, sizeof(command), "%s %s", o->before, subject);
	fflush(NULL);
	int rc = system(command);
	if (rc == 0)
		return true;
	*status = TB_EXIT_OSERR;
	if (rc > 0 && WIFSIGNALED(rc))
		snprintf(error, error_size, "the command of --before was ended by signal %d before %s", WTERMSIG(rc), subject);
	else
		snprintf(error, error_size, "the command of --before failed before %s (exit status %d)", subject,
			 rc < 0 ? 127 : WEXITSTATUS(rc));
	return false;
}

static void run_entry(const struct tb_options *o, struct tb_entry *e, uint32_t round)
{
	struct tb_result once;

	if (!prepare(o, (char[]){e->side, '\0'}, &e->result.status, e->result.error, sizeof(e->result.error)))
		return;
	if (o->find_max) {
		tb_findmax_run(&e->load, o->find_max_p99_ns, o->find_max_tries, TB_RATE_MAX, &e->findmax, &e->result);
		return;
	}
	if (round == 0) {
		tb_load_run(&e->load, &e->result);
		return;
	}
	if (!tb_result_init(&once)) {
		fprintf(stderr, "tickbench: out of memory.\n");
		exit(TB_EXIT_OSERR);
	}
	tb_load_run(&e->load, &once);
	tb_result_merge(&e->result, &once);
	tb_result_fini(&once);
}

static bool may_go_on(const struct tb_entry *e)
{
	return e->result.status == TB_EXIT_OK && !e->result.interrupted && !tb_stop_signal;
}

static bool run_echo(struct tb_report *rep)
{
	if (!prepare(rep->options, "echo", &rep->echo.status, rep->echo.error, sizeof(rep->echo.error)))
		return false;
	tb_echo_run(&rep->options->load, &rep->options->echo, &rep->echo);
	return rep->echo.status == TB_EXIT_OK && !rep->echo.interrupted;
}

/* Echo and brokers alternate within each round, so that a noisy minute hits all of them. */
static void run_type(struct tb_report *rep, enum tb_type type)
{
	const struct tb_options *o = rep->options;
	bool echo = o->has_echo && rep->entry_count == 0;
	struct tb_entry *a = add_entry(rep, 'A', type), *b = o->has_vs ? add_entry(rep, 'B', type) : NULL;

	for (uint32_t round = 0; round < o->rounds; round++) {
		if (echo && !run_echo(rep))
			return;
		run_entry(o, a, round);
		if (!may_go_on(a))
			return;
		if (b)
			run_entry(o, b, round);
		if (b && !may_go_on(b))
			return;
	}
}

static void run_all(struct tb_report *rep)
{
	const struct tb_options *o = rep->options;

	for (uint32_t round = 0; o->echo_only && round < o->rounds; round++)
		if (!run_echo(rep))
			return;
	if (o->echo_only)
		return;
	for (int t = 0; t < TB_TYPE_COUNT; t++) {
		if (!o->all_types && (enum tb_type)t != o->load.type)
			continue;
		run_type(rep, (enum tb_type)t);
		if (rep->echo.status != TB_EXIT_OK || rep->echo.interrupted)
			return;
		for (uint32_t i = 0; i < rep->entry_count; i++)
			if (!may_go_on(rep->entries[i]))
				return;
	}
}

static FILE *open_file(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f)
		fprintf(stderr, "tickbench: cannot write %s: %s\n", path, strerror(errno));
	return f;
}

static bool close_file(FILE *f, const char *path)
{
	bool bad = ferror(f) != 0;

	if (fclose(f) == 0 && !bad)
		return true;
	fprintf(stderr, "tickbench: cannot write %s: %s\n", path, strerror(errno));
	return false;
}

static bool write_one_hgrm(const char *path, const struct tb_hist *h)
{
	FILE *f = open_file(path);

	if (!f)
		return false;
	tb_hist_write_hgrm(h, f);
	return close_file(f, path);
}

/* FILE itself for a single distribution; otherwise what it is goes before FILE's suffix. */
static bool write_hgrms(const struct tb_report *rep)
{
	const char *path = rep->options->hgrm, *slash = strrchr(path, '/'), *dot = strrchr(path, '.');
	int stem = (int)(dot && dot > (slash ? slash : path) ? dot - path : (long)strlen(path));
	bool single = rep->entry_count + rep->echo.done == 1, ok = true;
	char name[4200];

	for (uint32_t i = 0; i < rep->entry_count; i++) {
		const struct tb_entry *e = rep->entries[i];
		snprintf(name, sizeof(name), "%.*s-%c-%s%s", stem, path, e->side == 'A' ? 'a' : 'b', tb_type_name(e->load.type),
			 path + stem);
		ok &= write_one_hgrm(single ? path : name, &e->result.all);
	}
	snprintf(name, sizeof(name), "%.*s-echo%s", stem, path, path + stem);
	if (rep->echo.done)
		ok &= write_one_hgrm(single ? path : name, &rep->echo.round_trip);
	return ok;
}

static bool write_form(const struct tb_report *rep, const char *path, void (*form)(const struct tb_report *, FILE *))
{
	FILE *f = open_file(path);

	if (!f)
		return false;
	form(rep, f);
	return close_file(f, path);
}

/* Asks before the load, whose figures would be lost afterwards. An older file keeps its content until there is a newer one. */
static bool can_write(const char *path)
{
	struct stat before;
	bool is_new = stat(path, &before) != 0;
	/* Opening a pipe and closing it again would be the end for who reads it. */
	bool plain = is_new || S_ISREG(before.st_mode);
	FILE *f = plain ? fopen(path, "a") : NULL;

	if (plain ? !f : S_ISDIR(before.st_mode) || access(path, W_OK) != 0) {
		errno = !plain && S_ISDIR(before.st_mode) ? EISDIR : errno;
		fprintf(stderr, "tickbench: cannot write %s: %s.\n", path, strerror(errno));
		return false;
	}
	if (f)
		fclose(f);
	if (is_new)
		unlink(path);
	return true;
}

static bool can_write_reports(const struct tb_options *o)
{
	return (!o->json || strcmp(o->json, "-") == 0 || can_write(o->json)) && (!o->svg || can_write(o->svg)) &&
	       (!o->hgrm || can_write(o->hgrm));
}

static bool write_reports(const struct tb_report *rep)
{
	const struct tb_options *o = rep->options;
	bool json_out = o->json && strcmp(o->json, "-") == 0, ok = true;

	if (!o->quiet)
		tb_report_text(rep, json_out ? stderr : stdout);
	if (json_out)
		tb_report_json(rep, stdout);
	else if (o->json)
		ok &= write_form(rep, o->json, tb_report_json);
	if (o->svg)
		ok &= write_form(rep, o->svg, tb_report_svg);
	if (o->hgrm)
		ok &= write_hgrms(rep);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "tickbench: cannot write the report: %s\n", strerror(errno));
		ok = false;
	}
	return ok;
}

static int exit_status(const struct tb_report *rep)
{
	bool loss = false;

	if (tb_stop_signal)
		return 128 + tb_stop_signal;
	if (rep->echo.status != TB_EXIT_OK) {
		fprintf(stderr, "tickbench: %s.\n", rep->echo.error);
		return (int)rep->echo.status;
	}
	for (uint32_t i = 0; i < rep->entry_count; i++) {
		const struct tb_entry *e = rep->entries[i];
		if (e->result.status != TB_EXIT_OK) {
			fprintf(stderr, "tickbench: %s: %s.\n", e->load.broker.text, e->result.error);
			return (int)e->result.status;
		}
		/* A search finds losses on purpose; it fails only when nothing at all was carried. */
		loss |= rep->options->find_max ? e->findmax.best_rate_per_s == 0 : !tb_result_clean(&e->result);
	}
	return loss ? TB_EXIT_LOSS : TB_EXIT_OK;
}

int main(int argc, char **argv)
{
	struct tb_options o;
	struct tb_report rep = {.options = &o};
	int rc = tb_options_parse(&o, argc, argv, stdout, stderr);

	if (rc >= 0)
		return rc;
	if (!can_write_reports(&o))
		return TB_EXIT_CANTCREAT;
	catch_signals();
	if (o.port.device[0]) {
		rc = tb_port_open(&o.port, argv, &o.load.via);
		if (rc != 0)
			return rc;
	}
	if (!raise_file_limit(o.load.subscribers + SPARE_FILES)) {
		fprintf(stderr, "tickbench: %u subscribers need more open files than the limit allows (ulimit -n).\n",
			o.load.subscribers);
		return TB_EXIT_OSERR;
	}
	/* The kernel's 50 us of timer slack would be counted as the broker's. */
	prctl(PR_SET_TIMERSLACK, 1UL);
	if (!tb_pin(o.load.cpus[0])) {
		fprintf(stderr, "tickbench: cannot pin to CPU %d: %s.\n", o.load.cpus[0], strerror(errno));
		return TB_EXIT_OSERR;
	}
	if (!tb_hist_init(&rep.echo.round_trip) || !tb_hist_init(&rep.echo.lateness)) {
		fprintf(stderr, "tickbench: out of memory.\n");
		return TB_EXIT_OSERR;
	}
	run_all(&rep);
	rc = write_reports(&rep) ? exit_status(&rep) : TB_EXIT_CANTCREAT;
	for (uint32_t i = 0; i < rep.entry_count; i++) {
		tb_result_fini(&rep.entries[i]->result);
		free(rep.entries[i]);
	}
	tb_hist_fini(&rep.echo.round_trip);
	tb_hist_fini(&rep.echo.lateness);
	if (o.port.device[0])
		tb_port_close();
	return rc;
}
