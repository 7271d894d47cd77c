/*
 * tickctl.c - the command line: options, the table of commands, and those that list or order.
 *
 * Owns: the process.
 * Core: short-lived, blocking.
 * Spec: rabbitmqctl's verbs, options, columns and exit statuses.
 */
#include "control/tickctl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "control/access.h"
#include "control/ctl_proto.h"

#define COLUMNS_MAX 64u

typedef int run_fn(const struct tickctl_options *o);

struct list_command {
	const char *name, *request, *banner, *columns, *known;
	bool per_vhost;
};

static const struct list_command lists[] = {
	{"list_queues", "list_queues", "Listing queues for vhost", "name messages",
	 "name vhost durable auto_delete exclusive arguments policy pid owner_pid exclusive_consumer_pid exclusive_consumer_tag "
	 "messages_ready "
	 "messages_unacknowledged messages message_bytes message_bytes_ready message_bytes_unacknowledged consumers type state "
	 "published "
	 "delivered acked dropped redelivered id",
	 true},
	{"list_exchanges", "list_exchanges", "Listing exchanges for vhost", "name type",
	 "name vhost type durable auto_delete internal arguments policy bindings id", true},
	{"list_bindings", "list_bindings", "Listing bindings for vhost",
	 "source_name source_kind destination_name destination_kind routing_key arguments",
	 "source_name source_kind destination_name destination_kind routing_key arguments vhost", true},
	{"list_consumers", "list_consumers", "Listing consumers in vhost",
	 "queue_name channel_pid consumer_tag ack_required prefetch_count active arguments",
	 "queue_name channel_pid consumer_tag ack_required prefetch_count active activity_status exclusive arguments "
	 "messages_unacknowledged",
	 true},
	{"list_connections", "list_connections", "Listing connections", "user peer_host peer_port state",
	 "pid name user_provided_name port host peer_port peer_host ssl state channels protocol user vhost timeout frame_max "
	 "channel_max "
	 "client_properties recv_oct recv_cnt send_oct send_cnt send_pend connected_at lcore rx_queue tcp_state srtt_us rttvar_us "
	 "rto_ms cwnd "
	 "ssthresh mss snd_wnd rcv_wnd snd_queue_bytes unacked_bytes sacked_bytes lost_bytes retrans min_rtt_us congestion sack "
	 "timestamps recovery reordering zero_window",
	 false},
	{"list_channels", "list_channels", "Listing channels", "pid user consumer_count messages_unacknowledged",
	 "pid connection name number user vhost transactional confirm consumer_count messages_unacknowledged messages_unconfirmed "
	 "messages_uncommitted acks_uncommitted "
	 "prefetch_count "
	 "global_prefetch_count publishes deliveries acks",
	 false},
	{"list_vhosts", "list_vhosts", "Listing vhosts", "name", "name configured", false},
	{"list_users", "list_users", "Listing users", "user tags", "user tags vhosts", false},
	{"tcp", "list_connections", "TCP of every connection",
	 "name tcp_state srtt_us rttvar_us rto_ms cwnd ssthresh congestion sack snd_wnd rcv_wnd snd_queue_bytes unacked_bytes "
	 "lost_bytes retrans",
	 NULL, false},
	{"matcher", "matcher", "Databases of exchanges in vhost",
	 "name type patterns overlay generation database_patterns bytes compile_ms state trouble",
	 "name vhost type patterns overlay generation database_patterns bytes compile_ms state trouble", true},
};
#define LISTS (sizeof lists / sizeof lists[0])

static int bad_usage(const char *what, const char *arg)
{
	fprintf(stderr, "Error: %s '%s'; see: tickctl help\n", what, arg);
	return CTL_EXIT_USAGE;
}

static bool is_word_of(const char *words, const char *word)
{
	size_t len = strlen(word);

	for (const char *at = words; *at != '\0'; at += strspn(at, " ")) {
		size_t n = strcspn(at, " ");

		if (n == len && memcmp(at, word, n) == 0)
			return true;
		at += n;
	}
	return false;
}

static const char *known_columns(const struct list_command *l)
{
	return l->known != NULL ? l->known : lists[4].known;
}

/* Columns are given one by one, or as one argument with spaces or commas in it. */
static size_t split_columns(char *text, const char **out, size_t max)
{
	size_t n = 0;

	for (char *w = strtok(text, " ,"); w != NULL && n < max; w = strtok(NULL, " ,"))
		out[n++] = w;
	return n;
}

static int choose_columns(const struct list_command *l, const struct tickctl_options *o, char *text, size_t text_bytes,
			  const char **out, size_t *count)
{
	const char *known = known_columns(l);
	size_t len = (size_t)snprintf(text, text_bytes, "%s", o->args_count > 1 ? "" : l->columns);

	for (int i = 1; i < o->args_count && len < text_bytes; i++)
		len += (size_t)snprintf(text + len, text_bytes - len, "%s ", o->args[i]);
	*count = split_columns(text, out, COLUMNS_MAX);
	for (size_t i = 0; i < *count; i++)
		if (!is_word_of(known, out[i])) {
			fprintf(stderr, "Error: %s has no column '%s'; it has: %s\n", l->name, out[i], known);
			return CTL_EXIT_USAGE;
		}
	return 0;
}

static bool talks(const struct tickctl_options *o)
{
	return !o->quiet && !o->silent && (o->format == TICKCTL_TABLE || o->format == TICKCTL_PRETTY);
}

static int ask_once(const struct tickctl_options *o, json_t *request, json_t **result)
{
	struct tickctl_client c;
	int rc = tickctl_connect(&c, o);

	if (rc != 0) {
		json_decref(request);
		return rc;
	}
	rc = tickctl_ask(&c, o, request, result);
	tickctl_close(&c);
	return rc;
}

static int run_list(const struct list_command *l, const struct tickctl_options *o)
{
	const char *columns[COLUMNS_MAX];
	char text[2048];
	json_t *result;
	size_t count;
	int rc = choose_columns(l, o, text, sizeof text, columns, &count);

	if (rc == 0)
		rc = ask_once(o, json_pack("{s:s, s:s}", "command", l->request, "vhost", o->vhost), &result);
	if (rc != 0)
		return rc;
	if (talks(o))
		printf("%s%s%s ...\n", l->banner, l->per_vhost ? " " : "", l->per_vhost ? o->vhost : "");
	tickctl_print_rows(stdout, json_object_get(result, "rows"), columns, count, o->format, !o->silent && !o->no_headers);
	json_decref(result);
	return 0;
}

/* ---- orders ---- */

static void join(const struct tickctl_options *o, int from, char *out, size_t out_bytes)
{
	size_t len = 0;

	out[0] = '\0';
	for (int i = from; i < o->args_count && len < out_bytes; i++)
		len += (size_t)snprintf(out + len, out_bytes - len, "%s%s", i > from ? " " : "", o->args[i]);
}

static int report_closed(const struct tickctl_options *o, json_t *result)
{
	if (o->format == TICKCTL_JSON)
		printf("{\"closed\":%lld}\n", (long long)json_integer_value(json_object_get(result, "closed")));
	else if (talks(o))
		printf("%lld closed\n", (long long)json_integer_value(json_object_get(result, "closed")));
	json_decref(result);
	return 0;
}

static int run_close(const struct tickctl_options *o)
{
	char reason[256];
	json_t *result;
	int rc;

	if (o->args_count < 3) {
		fprintf(stderr, "Error: usage: tickctl close_connection PID|NAME REASON\n");
		return CTL_EXIT_USAGE;
	}
	join(o, 2, reason, sizeof reason);
	if (talks(o))
		printf("Closing connection %s, reason: %s ...\n", o->args[1], reason);
	rc = ask_once(o, json_pack("{s:s, s:s, s:s}", "command", "close_connection", "id", o->args[1], "reason", reason), &result);
	return rc != 0 ? rc : report_closed(o, result);
}

static int run_close_all(const struct tickctl_options *o)
{
	char reason[256];
	json_t *request, *result;
	int rc;

	join(o, 1, reason, sizeof reason);
	if (reason[0] == '\0') {
		fprintf(stderr, "Error: usage: tickctl close_all_connections [-p VHOST] REASON\n");
		return CTL_EXIT_USAGE;
	}
	request = json_pack("{s:s, s:s}", "command", "close_all_connections", "reason", reason);
	if (o->vhost_given)
		json_object_set_new(request, "vhost", json_string(o->vhost));
	if (talks(o))
		printf("Closing connections%s%s, reason: %s ...\n", o->vhost_given ? " in vhost " : "",
		       o->vhost_given ? o->vhost : "", reason);
	rc = ask_once(o, request, &result);
	return rc != 0 ? rc : report_closed(o, result);
}

/* delete_queue's conditions are looked at here, in one row: what happens in between is a race that rabbitmqctl has as well. */
static int queue_free_to_go(const struct tickctl_options *o)
{
	json_t *result, *row;
	size_t i;
	int rc;

	if (!o->if_empty && !o->if_unused)
		return 0;
	rc = ask_once(o, json_pack("{s:s, s:s}", "command", "list_queues", "vhost", o->vhost), &result);
	if (rc != 0)
		return rc;
	json_array_foreach(json_object_get(result, "rows"), i, row)
	{
		const char *name = json_string_value(json_object_get(row, "name"));

		if (name == NULL || strcmp(name, o->args[1]) != 0)
			continue;
		if (o->if_empty && json_integer_value(json_object_get(row, "messages")) != 0)
			rc = CTL_EXIT_DATA;
		if (o->if_unused && json_integer_value(json_object_get(row, "consumers")) != 0)
			rc = CTL_EXIT_DATA;
	}
	json_decref(result);
	fflush(stdout);
	if (rc != 0)
		fprintf(stderr, "Error: queue '%s' is not empty or has consumers, so it was not deleted\n", o->args[1]);
	return rc;
}

static int run_queue(const struct tickctl_options *o)
{
	bool purge = strcmp(o->args[0], "purge_queue") == 0;
	json_t *result;
	int rc;

	if (o->args_count != 2) {
		fprintf(stderr, "Error: usage: tickctl %s [-p VHOST] QUEUE\n", o->args[0]);
		return CTL_EXIT_USAGE;
	}
	if (talks(o))
		printf("%s queue '%s' in vhost '%s' ...\n", purge ? "Purging" : "Deleting", o->args[1], o->vhost);
	rc = purge ? 0 : queue_free_to_go(o);
	if (rc == 0)
		rc = ask_once(o, json_pack("{s:s, s:s, s:s}", "command", o->args[0], "vhost", o->vhost, "name", o->args[1]),
			      &result);
	if (rc == 0)
		json_decref(result);
	return rc;
}

static int run_ping(const struct tickctl_options *o)
{
	json_t *result;
	int rc = ask_once(o, json_pack("{s:s}", "command", "ping"), &result);

	if (rc != 0)
		return rc;
	json_decref(result);
	if (o->format == TICKCTL_JSON)
		printf("{\"result\":\"ok\"}\n");
	else if (talks(o))
		printf("Ping succeeded\n");
	return 0;
}

static int run_version(const struct tickctl_options *o)
{
	printf(o->format == TICKCTL_JSON ? "{\"version\":\"%s\"}\n" : "%s\n", TICKWIRE_VERSION);
	return 0;
}

/* Once more until the dataplane is attached; what stands in the way is said when time is up. */
static int run_await(const struct tickctl_options *o)
{
	struct timespec began, now, nap = {0, 50000000};
	struct tickctl_options quiet = *o;
	bool reached = false;

	clock_gettime(CLOCK_MONOTONIC, &began);
	quiet.timeout_s = 1;
	quiet.mute = true; /* the sentences of tries that fail are no news */
	for (;;) {
		struct tickctl_client c;
		json_t *status = NULL;
		bool up;

		if (tickctl_connect(&c, &quiet) == 0) {
			reached = tickctl_ask(&c, &quiet, json_pack("{s:s}", "command", "status"), &status) == 0;
			tickctl_close(&c);
		}
		up = json_is_object(json_object_get(status, "dataplane"));
		json_decref(status);
		if (up)
			return 0;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (o->timeout_s > 0 &&
		    (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) / 1e9 > o->timeout_s)
			break;
		nanosleep(&nap, NULL);
	}
	fprintf(stderr, "Error: within %g seconds %s\n", o->timeout_s,
		reached ? "control did not attach to a dataplane: is tickwire-dataplane running? Control's log says why it does "
			  "not attach"
			: "control did not answer: is tickwire-control running?");
	return CTL_EXIT_TEMPFAIL;
}

/* Reads a line without showing it when it is typed. */
static bool read_password(char *out, size_t bytes)
{
	struct termios old, hidden;
	bool tty = tcgetattr(STDIN_FILENO, &old) == 0;
	bool ok;

	if (tty) {
		fprintf(stderr, "Password: ");
		hidden = old;
		hidden.c_lflag &= ~(tcflag_t)ECHO;
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden);
	}
	ok = fgets(out, (int)bytes, stdin) != NULL;
	if (tty) {
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
		fprintf(stderr, "\n");
	}
	if (ok)
		out[strcspn(out, "\n")] = '\0';
	return ok && out[0] != '\0';
}

static int run_hash(const struct tickctl_options *o)
{
	uint8_t salt[CTL_SALT_BYTES], hash[CTL_HASH_BYTES];
	char typed[512], text[CTL_HASH_TEXT_BYTES];
	const char *password = o->args_count > 1 ? o->args[1] : typed;

	if (o->args_count > 2 || (o->args_count < 2 && !read_password(typed, sizeof typed)) || *password == '\0') {
		fprintf(stderr,
			"Error: usage: tickctl hash_password [PASSWORD]; without it the password is read from standard input\n");
		return CTL_EXIT_USAGE;
	}
	if (!ctl_random(salt, sizeof salt)) {
		fprintf(stderr, "Error: the system gives no random octets\n");
		return CTL_EXIT_SOFTWARE;
	}
	ctl_password_hash(password, strlen(password), salt, hash);
	ctl_password_text(hash, text);
	printf("%s\n", text);
	return 0;
}

static int with_client(const struct tickctl_options *o, int (*fn)(struct tickctl_client *c, const struct tickctl_options *o))
{
	struct tickctl_client c;
	int rc = tickctl_connect(&c, o);

	if (rc != 0)
		return rc;
	rc = fn(&c, o);
	tickctl_close(&c);
	return rc;
}

/* Figures for people have no rows and columns that CSV could name. */
static bool csv_refused(const struct tickctl_options *o)
{
	if (o->format == TICKCTL_CSV)
		fprintf(stderr, "Error: %s has no csv form; use --formatter json\n", o->args[0]);
	return o->format == TICKCTL_CSV;
}

static int run_status(const struct tickctl_options *o)
{
	return csv_refused(o) ? CTL_EXIT_USAGE : with_client(o, tickctl_status);
}

static int run_stats(const struct tickctl_options *o)
{
	return csv_refused(o) ? CTL_EXIT_USAGE : with_client(o, tickctl_stats);
}

static int run_latency(const struct tickctl_options *o)
{
	return csv_refused(o) ? CTL_EXIT_USAGE : with_client(o, tickctl_latency);
}

static run_fn run_help;

static const struct command {
	const char *name;
	run_fn *run;
	int args_max; /* after the name */
	const char *arguments, *help;
} commands[] = {
	{"status", run_status, 0, "", "processes, port, pools, memory"},
	{"ping", run_ping, 0, "", "0 when control answers and the dataplane is attached"},
	{"await_startup", run_await, 0, "", "waits until the dataplane is attached"},
	{"stats", run_stats, 0, "[--watch [SECONDS]] [--all]", "busy and idle, rates, drops by reason"},
	{"latency", run_latency, 0, "", "where the time of a tick goes"},
	{"close_connection", run_close, 64, "PID|NAME REASON", ""},
	{"close_all_connections", run_close_all, 64, "[-p VHOST] REASON", ""},
	{"purge_queue", run_queue, 1, "[-p VHOST] QUEUE", ""},
	{"delete_queue", run_queue, 1, "[-p VHOST] [--if-empty] [--if-unused] QUEUE", ""},
	{"hash_password", run_hash, 1, "[PASSWORD]", "a password_hash for the configuration"},
	{"version", run_version, 0, "", "of this program"},
	{"help", run_help, 1, "[COMMAND]", "this text, or a command's usage and columns"},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static const struct command *command_of(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static const struct list_command *list_of(const char *name)
{
	for (size_t i = 0; i < LISTS; i++)
		if (strcmp(lists[i].name, name) == 0)
			return &lists[i];
	return NULL;
}

static void command_usage(FILE *out, const struct command *c)
{
	fprintf(out, "usage: tickctl [OPTIONS] %s%s%s\n", c->name, *c->arguments != '\0' ? " " : "", c->arguments);
	if (*c->help != '\0')
		fprintf(out, "%s\n", c->help);
}

static void list_usage(const struct list_command *l)
{
	printf("usage: tickctl [OPTIONS] %s %s[COLUMN ...]\nColumns without being asked: %s\nColumns: %s\n", l->name,
	       l->per_vhost ? "[-p VHOST] " : "", l->columns, known_columns(l));
}

static int run_help(const struct tickctl_options *o)
{
	if (o->args_count > 1) {
		const struct command *c = command_of(o->args[1]);
		const struct list_command *l = list_of(o->args[1]);

		if (c != NULL)
			command_usage(stdout, c);
		else if (l != NULL)
			list_usage(l);
		else
			return bad_usage("unknown command", o->args[1]);
		return 0;
	}
	printf("usage: tickctl [OPTIONS] COMMAND [ARGUMENTS]\n\n"
	       "  -p, --vhost VHOST       vhost of the command (default: /)\n"
	       "  --formatter FORM        table, pretty_table, json or csv\n"
	       "  -q, --quiet             no line before the rows\n"
	       "  -s, --silent            nor a line of column names\n"
	       "  --no-table-headers      no line of column names\n"
	       "  -t, --timeout SECONDS   how long to wait for control (default: 60; 0: for ever)\n"
	       "  --socket PATH           control's socket (default: $TICKWIRE_SOCKET, else %s)\n"
	       "  --help, --version       this text, or a command's; the version\n\nCommands:\n",
	       CTL_PROTO_SOCKET);
	for (size_t i = 0; i < COMMANDS; i++)
		printf("  %-22s %s%s%s\n", commands[i].name, commands[i].arguments,
		       *commands[i].arguments != '\0' && *commands[i].help != '\0' ? "  " : "", commands[i].help);
	printf("\nCommands that list; columns may follow, and 'tickctl help COMMAND' names all that there are:\n");
	for (size_t i = 0; i < LISTS; i++)
		printf("  %-22s %s\n", lists[i].name, lists[i].columns);
	printf("\nExit: 0 ok, 64 usage, 65 no such object, 69 control or dataplane is away, 70 internal, 74 output lost, "
	       "75 timeout.\n");
	return 0;
}

/* ---- options ---- */

/* *out is left alone when it is none. */
static bool number(const char *text, double *out)
{
	double v;
	char *end;

	errno = 0;
	v = strtod(text, &end);
	if (errno != 0 || end == text || *end != '\0' || !(v >= 0 && v < 1e9))
		return false;
	*out = v;
	return true;
}

static bool format_of(const char *text, enum tickctl_format *out)
{
	static const char *const names[] = {"table", "pretty_table", "json", "csv"};

	for (int i = 0; i < 4; i++)
		if (strcmp(text, names[i]) == 0) {
			*out = (enum tickctl_format)i;
			return true;
		}
	return false;
}

/* An option's name without its value: "--formatter=json" is "--formatter" with "json". */
static bool option_is(const char *arg, const char *name, const char **value)
{
	size_t len = strlen(name);

	if (strncmp(arg, name, len) != 0 || (arg[len] != '\0' && (arg[len] != '=' || arg[1] != '-')))
		return false;
	*value = arg[len] == '=' ? arg + len + 1 : NULL;
	return true;
}

static bool flag_option(const char *arg, struct tickctl_options *o)
{
	const struct {
		const char *name;
		bool *flag;
	} flags[] = {{"-q", &o->quiet},
		     {"--quiet", &o->quiet},
		     {"-s", &o->silent},
		     {"--silent", &o->silent},
		     {"--no-table-headers", &o->no_headers},
		     {"--all", &o->all},
		     {"--if-empty", &o->if_empty},
		     {"--if-unused", &o->if_unused}};

	for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
		if (strcmp(arg, flags[i].name) == 0) {
			*flags[i].flag = true;
			return true;
		}
	return false;
}

/* -1: it is no option with a value; 0: taken; else an exit status. *used: the value was the next argument. */
static int value_option(const char *arg, const char *next, struct tickctl_options *o, bool *used)
{
	static const char *const names[] = {"-p", "--vhost", "--formatter", "-t", "--timeout", "--socket"};
	const char *value = NULL;
	size_t i = 0;

	while (i < 6 && !option_is(arg, names[i], &value))
		i++;
	if (i == 6)
		return -1;
	*used = value == NULL;
	value = value != NULL ? value : next;
	if (value == NULL)
		return bad_usage("a value is missing after", arg);
	if (i <= 1) {
		o->vhost = value;
		o->vhost_given = true;
	} else if (i == 2 && !format_of(value, &o->format)) {
		return bad_usage("--formatter wants table, pretty_table, json or csv, not", value);
	} else if ((i == 3 || i == 4) && strcmp(value, "infinity") == 0) {
		o->timeout_s = 0;
	} else if ((i == 3 || i == 4) && !number(value, &o->timeout_s)) {
		return bad_usage("--timeout wants seconds, not", value);
	} else if (i == 5) {
		o->socket = value;
	}
	return 0;
}

static int read_options(int argc, char **argv, struct tickctl_options *o)
{
	for (int i = 1; i < argc; i++) {
		const char *value;
		bool used = false;
		int rc;

		if (argv[i][0] != '-' || argv[i][1] == '\0') {
			if (o->args_count == (int)(sizeof o->args / sizeof o->args[0]))
				return bad_usage("too many arguments, from", argv[i]);
			o->args[o->args_count++] = argv[i];
		} else if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0) {
			o->help = true;
		} else if (strcmp(argv[i], "--version") == 0 && o->args_count == 0) {
			o->args[o->args_count++] = "version";
		} else if (option_is(argv[i], "--watch", &value)) {
			o->watch = true;
			if (value == NULL && i + 1 < argc && number(argv[i + 1], &o->watch_s))
				i++;
			else if (value != NULL && !number(value, &o->watch_s))
				return bad_usage("--watch wants seconds, not", value);
			if (o->watch_s <= 0)
				return bad_usage("--watch wants more than no seconds, not", value != NULL ? value : argv[i]);
		} else if (!flag_option(argv[i], o)) {
			rc = value_option(argv[i], i + 1 < argc ? argv[i + 1] : NULL, o, &used);
			if (rc != 0)
				return rc > 0 ? rc : bad_usage("unknown option", argv[i]);
			i += used;
		}
	}
	if (o->watch_s < 0.1)
		o->watch_s = 0.1;
	return 0;
}

static int run(struct tickctl_options *o)
{
	const struct command *c;
	const struct list_command *l;

	if (o->help) {
		if (o->args_count > 0 && strcmp(o->args[0], "help") != 0)
			o->args[1] = o->args[0];
		o->args_count = o->args_count > 0 && strcmp(o->args[0], "help") != 0 ? 2 : 1;
		o->args[0] = "help";
	}
	if (o->args_count == 0) {
		fprintf(stderr, "Error: which command? See: tickctl help\n");
		return CTL_EXIT_USAGE;
	}
	c = command_of(o->args[0]);
	l = list_of(o->args[0]);
	if (c != NULL && o->args_count - 1 > c->args_max) {
		fprintf(stderr, "Error: '%s' is one argument too many; ", o->args[c->args_max + 1]);
		command_usage(stderr, c);
		return CTL_EXIT_USAGE;
	}
	if (c != NULL)
		return c->run(o);
	return l != NULL ? run_list(l, o) : bad_usage("unknown command", o->args[0]);
}

int main(int argc, char **argv)
{
	const char *env = getenv("TICKWIRE_SOCKET");
	struct tickctl_options o = {
		.socket = env != NULL && *env != '\0' ? env : CTL_PROTO_SOCKET, .vhost = "/", .timeout_s = 60, .watch_s = 1};
	int rc = read_options(argc, argv, &o);

	if (rc == 0)
		rc = run(&o);
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return rc;
	fprintf(stderr, "Error: the output could not be written%s%s\n", errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
	return rc != 0 ? rc : CTL_EXIT_IOERR;
}
