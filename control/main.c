/*
 * main.c - tickwire-control: options, signals, the event loop.
 *
 * Owns: the process.
 * Core: an ordinary one; it may block, and the dataplane goes on without it.
 * Spec: DESIGN section 1; exit statuses of sysexits.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/cli.h"
#include "control/control.h"
#include "control/ctl_proto.h"
#include "control/log.h"

static const char usage_text[] =
	"usage: tickwire-control [--config FILE] [--foreground] [--check-config]\n"
	"Keeps Tickwire's definitions, programs the dataplane, serves tickctl.\n"
	"  --config FILE    configuration (default: " CTL_DEFAULT_CONFIG ")\n"
	"  --foreground     stay in the foreground; without it the process detaches when it is ready\n"
	"  --check-config   read the configuration, say what is wrong with it, and exit (0: nothing); a [dataplane] section\n"
	"                   is not judged: that is tickwire-dataplane's, which reads the same file\n"
	"  --version        print the version\n"
	"  --help           print this text\n"
	"Signals: TERM and INT end it (the dataplane goes on), HUP reads users, vhosts and log_level anew.\n"
	"Exit: 0 ok, 64 usage, 69 a socket or file cannot be had, 70 internal, 78 configuration.\n";

struct arguments {
	const char *config;
	bool foreground, check;
};

/* -1: go on; else the exit status. */
static int read_arguments(int argc, char **argv, struct arguments *a)
{
	static const struct option longs[] = {{"config", required_argument, NULL, 'c'}, {"foreground", no_argument, NULL, 'f'},
					      {"check-config", no_argument, NULL, 'k'}, {"version", no_argument, NULL, 'v'},
					      {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
	int opt;

	while ((opt = getopt_long(argc, argv, "c:h", longs, NULL)) != -1)
		switch (opt) {
		case 'c':
			a->config = optarg;
			break;
		case 'f':
			a->foreground = true;
			break;
		case 'k':
			a->check = true;
			break;
		case 'v':
			printf("tickwire-control %s\n", TICKWIRE_VERSION);
			return 0;
		case 'h':
			fputs(usage_text, stdout);
			return 0;
		default:
			fputs("Try 'tickwire-control --help'.\n", stderr);
			return CTL_EXIT_USAGE;
		}
	if (optind == argc)
		return -1;
	fprintf(stderr, "tickwire-control: unexpected argument '%s'; try 'tickwire-control --help'\n", argv[optind]);
	return CTL_EXIT_USAGE;
}

static void on_leave(evutil_socket_t sig, short what, void *arg)
{
	(void)what;
	ctl_log(CTL_LOG_INFO, "signal %d: control leaves; the dataplane goes on", (int)sig);
	event_base_loopbreak(arg);
}

static void on_hangup(evutil_socket_t sig, short what, void *arg)
{
	(void)sig;
	(void)what;
	ctl_control_reload(arg);
}

static struct event *on_signal(struct event_base *base, int sig, event_callback_fn fn, void *arg)
{
	struct event *ev = evsignal_new(base, sig, fn, arg);

	if (ev == NULL || event_add(ev, NULL) != 0) {
		fprintf(stderr, "tickwire-control: signal %d cannot be caught\n", sig);
		exit(CTL_EXIT_SOFTWARE);
	}
	return ev;
}

static int serve(struct ctl_control *c)
{
	struct event_base *base = event_base_new();
	struct event *signals[3];
	struct ctl_cli *cli;
	char err[1024];

	if (base == NULL || !ctl_control_init(c, base, err, sizeof err) ||
	    (cli = ctl_cli_new(c, c->options.cli_socket, err, sizeof err)) == NULL) {
		fprintf(stderr, "tickwire-control: %s\n", base == NULL ? "no event loop" : err);
		return CTL_EXIT_UNAVAILABLE;
	}
	signals[0] = on_signal(base, SIGTERM, on_leave, base);
	signals[1] = on_signal(base, SIGINT, on_leave, base);
	signals[2] = on_signal(base, SIGHUP, on_hangup, c);
	ctl_log(CTL_LOG_INFO, "tickwire-control %s: %u exchanges, %u queues and %u bindings known, %u users, CLI on %s",
		TICKWIRE_VERSION, c->rib.exchange_ids.used, c->rib.queue_ids.used, c->rib.binding_ids.used, c->options.users.count,
		c->options.cli_socket);
	ctl_control_start(c);
	event_base_dispatch(base);
	ctl_cli_free(cli);
	ctl_control_fini(c);
	for (size_t i = 0; i < 3; i++)
		event_free(signals[i]);
	event_base_free(base);
	return 0;
}

int main(int argc, char **argv)
{
	struct arguments a = {.config = CTL_DEFAULT_CONFIG};
	static struct ctl_control c;
	char err[1024];
	int rc = read_arguments(argc, argv, &a);

	if (rc >= 0)
		return rc;
	if (!ctl_options_load(&c.options, a.config, err, sizeof err)) {
		fprintf(stderr, "tickwire-control: %s\n", err);
		return CTL_EXIT_CONFIG;
	}
	if (a.check) {
		printf("%s: ok, %u users, %u vhosts\n", a.config, c.options.users.count, c.options.vhosts_count);
		ctl_options_free(&c.options);
		return 0;
	}
	c.config_path = a.config;
	ctl_log_set_level((enum ctl_log_level)c.options.log_level);
	if (!ctl_log_open(c.options.log_file)) {
		fprintf(stderr, "tickwire-control: log_file %s cannot be opened: %s\n", c.options.log_file, strerror(errno));
		return CTL_EXIT_CONFIG;
	}
	signal(SIGPIPE, SIG_IGN);
	/* Before any thread or event loop: neither survives a fork. The working directory stays, since paths may be relative. */
	if (!a.foreground && daemon(1, c.options.log_file[0] == '\0') != 0) {
		fprintf(stderr, "tickwire-control: cannot detach: %s\n", strerror(errno));
		return CTL_EXIT_UNAVAILABLE;
	}
	rc = serve(&c);
	ctl_options_free(&c.options);
	return rc;
}
