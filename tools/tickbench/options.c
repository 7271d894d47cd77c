/* Reading and checking the command line.
 * Runs once on the main thread.
 * Specification: GNU long options; a refused option names itself in one sentence and leaves with 64. */
#include "tools/tickbench/options.h"

#include "tools/tickbench/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

enum option_id {
	OPT_NONE = 256,
#define TB_OPTION(id, name, argument, help) OPT_##id,
#include "tools/tickbench/options.def"
#undef TB_OPTION
	OPT_END,
};

static const struct {
	const char *name;
	const char *argument;
	const char *help;
} option_texts[] = {
#define TB_OPTION(id, name, argument, help) {name, argument, help},
#include "tools/tickbench/options.def"
#undef TB_OPTION
};

#define OPTION_COUNT (OPT_END - OPT_NONE - 1)

struct parse {
	struct tb_options *o;
	FILE *err;
	const char *host;
	const char *port;
	bool has_p99;
	bool has_tries;
	bool has_address;
	const char *port_option; /* the last of those that only a device gives a meaning */
	int cpu_count;
};

static int refuse(struct parse *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int refuse(struct parse *p, const char *format, ...)
{
	va_list args;

	fprintf(p->err, "tickbench: ");
	va_start(args, format);
	vfprintf(p->err, format, args);
	va_end(args);
	fprintf(p->err, "\n");
	return TB_EXIT_USAGE;
}

static void print_help(FILE *out)
{
	fprintf(out,
		"Usage: tickbench [OPTION]... [HOST:PORT]\n"
		"Loads an AMQP 0-9-1 broker with ticks on a fixed schedule and measures the time from the instant at which each\n"
		"tick was meant to be sent to its delivery to every subscriber.\n\n");
	for (int i = 0; i < OPTION_COUNT; i++) {
		char left[64];
		snprintf(left, sizeof(left), "--%s%s%s", option_texts[i].name, option_texts[i].argument ? "=" : "",
			 option_texts[i].argument ? option_texts[i].argument : "");
		fprintf(out, "  %-26s %s\n", left, option_texts[i].help);
	}
	fprintf(out,
		"\nExit status: 0 all delivered once and in order; 1 loss, duplicates, disorder or unsent ticks; 64 bad option;\n"
		"69 a broker cannot be reached or went away; 70 protocol error; 71 the system refused memory, files, a CPU or "
		"--before;\n"
		"73 a report cannot be written; 130 interrupted (what was measured is printed).\n");
}

bool tb_endpoint_parse(struct tb_endpoint *e, const char *text, const char *default_port)
{
	const char *host = text, *colon = strrchr(text, ':'), *port = default_port;
	size_t length = strlen(text);

	if (text[0] == '[') {
		const char *end = strchr(text, ']');
		if (!end || (end[1] != '\0' && end[1] != ':'))
			return false;
		host = text + 1;
		length = (size_t)(end - host);
		if (end[1] == ':')
			port = end + 2;
	} else if (colon && strchr(text, ':') == colon) {
		length = (size_t)(colon - text);
		port = colon + 1;
	}
	char *end;
	errno = 0;
	unsigned long number = strtoul(port, &end, 10);
	if (length == 0 || length >= sizeof(e->host) || port[0] < '0' || port[0] > '9' || *end || errno || number < 1 ||
	    number > 65535)
		return false;
	memcpy(e->host, host, length);
	e->host[length] = '\0';
	snprintf(e->port, sizeof(e->port), "%lu", number);
	snprintf(e->text, sizeof(e->text), strchr(e->host, ':') ? "[%s]:%s" : "%s:%s", e->host, e->port);
	return true;
}

static int get_count(struct parse *p, const char *name, const char *text, uint64_t min, uint64_t max, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || errno || *value < min || *value > max)
		return refuse(p, "--%s takes a whole number from %llu to %llu, not '%s'.", name, (unsigned long long)min,
			      (unsigned long long)max, text);
	return -1;
}

static int get_count32(struct parse *p, const char *name, const char *text, uint32_t min, uint32_t max, uint32_t *value)
{
	uint64_t wide = 0;
	int rc = get_count(p, name, text, min, max, &wide);

	*value = (uint32_t)wide;
	return rc;
}

/* Numbers with a fraction; the unit is the caller's. */
static int get_decimal(struct parse *p, const char *name, const char *text, double min, double max, double scale,
		       uint64_t *value_ns)
{
	char *end;
	double value = strtod(text, &end);

	if (((text[0] < '0' || text[0] > '9') && text[0] != '.') || *end || !(value >= min && value <= max))
		return refuse(p, "--%s takes a number from %g to %g, not '%s'.", name, min, max, text);
	*value_ns = (uint64_t)(value * scale + 0.5);
	return -1;
}

static int get_type(struct parse *p, const char *text)
{
	p->o->all_types = strcmp(text, "all") == 0;
	p->o->load.type = TB_TYPE_DIRECT;
	if (p->o->all_types)
		return -1;
	for (int t = 0; t < TB_TYPE_COUNT; t++)
		if (strcmp(text, tb_type_name((enum tb_type)t)) == 0) {
			p->o->load.type = (enum tb_type)t;
			return -1;
		}
	return refuse(p, "--type takes direct, fanout, topic, headers or all, not '%s'.", text);
}

static int get_cpus(struct parse *p, const char *name, const char *text)
{
	long cpus = sysconf(_SC_NPROCESSORS_CONF);
	const char *at = text;

	for (p->cpu_count = 0; p->cpu_count < 2; p->cpu_count++) {
		char *end;
		long cpu = strtol(at, &end, 10);
		if (at[0] < '0' || at[0] > '9' || cpu >= cpus)
			break;
		p->o->load.cpus[p->cpu_count] = (int)cpu;
		if (*end == '\0') {
			p->cpu_count++;
			return -1;
		}
		if (*end != ',')
			break;
		at = end + 1;
	}
	return refuse(p, "--%s takes one CPU number or two (A,B) from 0 to %ld, not '%s'.", name, cpus - 1, text);
}

static int get_text(struct parse *p, const char *name, const char *text, size_t max, const char **value)
{
	if (strlen(text) > max || !text[0])
		return refuse(p, "--%s takes a text of 1 to %zu bytes.", name, max);
	*value = text;
	return -1;
}

static int get_endpoint(struct parse *p, const char *name, const char *text, const char *port, struct tb_endpoint *e)
{
	if (tb_endpoint_parse(e, text, port))
		return -1;
	return refuse(p, "--%s takes HOST:PORT (an IPv6 address in brackets), not '%s'.", name, text);
}

/* ADDR/LEN, or ADDR alone where no length is asked for. */
static int get_ipv4(struct parse *p, const char *name, const char *text, uint8_t addr[4], uint8_t *prefix_len)
{
	const char *slash = strchr(text, '/');
	char host[INET_ADDRSTRLEN] = "", *end = NULL;
	unsigned long length = slash ? strtoul(slash + 1, &end, 10) : 0;
	size_t bytes = slash ? (size_t)(slash - text) : strlen(text);

	if (bytes < sizeof(host))
		memcpy(host, text, bytes);
	if (inet_pton(AF_INET, host, addr) != 1 || (slash != NULL) != (prefix_len != NULL) ||
	    (slash && (slash[1] < '0' || slash[1] > '9' || *end || length < 1 || length > 31)))
		return refuse(p, "--%s takes an IPv4 address%s, not '%s'.", name,
			      prefix_len ? " and the length of its network" : "", text);
	if (prefix_len)
		*prefix_len = (uint8_t)length;
	return -1;
}

/* Where the broker is: its TCP port, or the device that it is reached over. */
static int get_port(struct parse *p, const char *text)
{
	if (text[0] >= '0' && text[0] <= '9' && !strchr(text, ':')) {
		p->port = text;
		return -1;
	}
	if (tb_port_device(&p->o->port, text))
		return -1;
	return refuse(p,
		      "--port takes the number of a TCP port, or a DPDK device: memif, net_memif0,role=client,..., another "
		      "net_... of DPDK, or a PCI address; not '%s'.",
		      text);
}

/* Options of the device. */
static int take_port(struct parse *p, int id, const char *name, const char *text)
{
	struct tb_port_options *o = &p->o->port;
	uint32_t core = 0;
	int rc;

	if (id == OPT_PORT_IP || id == OPT_PORT_GATEWAY || id == OPT_PORT_CORE || id == OPT_PORT_MTU || id == OPT_PORT_EAL)
		p->port_option = name;
	switch (id) {
	case OPT_PORT_IP:
		return get_ipv4(p, name, text, o->ip, &o->prefix_len);
	case OPT_PORT_GATEWAY:
		return get_ipv4(p, name, text, o->gateway, NULL);
	case OPT_PORT_CORE:
		rc = get_count32(p, name, text, 0, (uint32_t)sysconf(_SC_NPROCESSORS_CONF) - 1, &core);
		o->core = (int)core;
		return rc;
	case OPT_PORT_MTU:
		return get_count32(p, name, text, 576, 9000, &o->mtu);
	case OPT_PORT_EAL:
		return get_text(p, name, text, 2000, &o->eal);
	default:
		return -1;
	}
}

/* Options that say where and as whom. */
static int take_target(struct parse *p, int id, const char *name, const char *text)
{
	struct tb_options *o = p->o;

	switch (id) {
	case OPT_HOST:
		p->host = text;
		return -1;
	case OPT_PORT:
		return get_port(p, text);
	case OPT_USER:
		return get_text(p, name, text, 255, &o->load.login.user);
	case OPT_PASSWORD:
		return get_text(p, name, text, 255, &o->load.login.password);
	case OPT_VHOST:
		return get_text(p, name, text, 255, &o->load.login.vhost);
	case OPT_NAME:
		return get_text(p, name, text, 200, &o->load.name);
	case OPT_VS:
		o->has_vs = true;
		return get_endpoint(p, name, text, "5672", &o->vs);
	case OPT_ECHO:
		o->has_echo = true;
		return get_endpoint(p, name, text, "7", &o->echo);
	default:
		return -1;
	}
}

/* Options that shape the load. */
static int take_load(struct parse *p, int id, const char *name, const char *text)
{
	struct tb_load *l = &p->o->load;

	switch (id) {
	case OPT_SUBSCRIBERS:
		return get_count32(p, name, text, 1, TB_SUBSCRIBERS_MAX, &l->subscribers);
	case OPT_TYPE:
		return get_type(p, text);
	case OPT_RATE:
		return get_count(p, name, text, 1, TB_RATE_MAX, &l->rate_per_s);
	case OPT_BURST:
		return get_count32(p, name, text, 1, 100000, &l->burst);
	case OPT_SIZE:
		return get_count32(p, name, text, TB_PAYLOAD_MIN_BYTES, TB_SIZE_MAX_BYTES, &l->size_bytes);
	case OPT_SYMBOLS:
		return get_count32(p, name, text, 1, TB_SYMBOLS_MAX, &l->symbols);
	case OPT_BINDINGS:
		return get_count32(p, name, text, 0, TB_BINDINGS_MAX, &l->bindings);
	case OPT_MATCHING:
		return get_count32(p, name, text, 0, TB_BINDINGS_MAX, &l->matching_bindings);
	case OPT_DURATION:
		return get_decimal(p, name, text, 0.1, 86400, 1e9, &l->duration_ns);
	case OPT_WARMUP:
		return get_decimal(p, name, text, 0, 3600, 1e9, &l->warmup_ns);
	case OPT_DRAIN:
		return get_decimal(p, name, text, 0.1, 300, 1e9, &l->drain_ns);
	case OPT_PREFETCH:
		return get_count32(p, name, text, 0, 65535, &l->prefetch);
	case OPT_THREADS:
		return get_count32(p, name, text, 1, 2, &l->threads);
	case OPT_CPU:
	case OPT_PIN:
		return get_cpus(p, name, text);
	default:
		return -1;
	}
}

/* Options that choose what is done and what is written. */
static int take_other(struct parse *p, int id, const char *name, const char *text)
{
	struct tb_options *o = p->o;

	switch (id) {
	case OPT_ACK:
		o->load.ack = true;
		return -1;
	case OPT_CONFIRM:
		o->load.confirm = true;
		return -1;
	case OPT_ROUNDS:
		return get_count32(p, name, text, 1, 100, &o->rounds);
	case OPT_ECHO_ONLY:
		o->echo_only = true;
		return -1;
	case OPT_BEFORE:
		return get_text(p, name, text, 4000, &o->before);
	case OPT_FIND_MAX:
		o->find_max = true;
		return -1;
	case OPT_FIND_MAX_P99:
		p->has_p99 = true;
		return get_decimal(p, name, text, 0.001, 60000, 1e6, &o->find_max_p99_ns);
	case OPT_FIND_MAX_TRIES:
		p->has_tries = true;
		return get_count32(p, name, text, 1, 10, &o->find_max_tries);
	case OPT_POLL:
		o->load.busy_poll = strcmp(text, "busy") == 0;
		if (!o->load.busy_poll && strcmp(text, "epoll") != 0)
			return refuse(p, "--poll takes busy or epoll, not '%s'.", text);
		return -1;
	case OPT_JSON:
		return get_text(p, name, text, 4000, &o->json);
	case OPT_HGRM:
		return get_text(p, name, text, 4000, &o->hgrm);
	case OPT_SVG:
		return get_text(p, name, text, 4000, &o->svg);
	case OPT_HISTOGRAM:
		o->histogram = true;
		return -1;
	case OPT_PROGRESS:
		o->load.progress = true;
		return -1;
	case OPT_QUIET:
		o->quiet = true;
		return -1;
	default:
		return -1;
	}
}

static int check_load(struct parse *p)
{
	struct tb_load *l = &p->o->load;
	bool direct_only = l->type == TB_TYPE_DIRECT && !p->o->all_types;

	if (l->prefetch && !l->ack)
		return refuse(p,
			      "--prefetch has no effect without --ack: the broker applies it to unacknowledged deliveries alone.");
	if (l->matching_bindings && direct_only)
		return refuse(p,
			      "--matching-bindings has no meaning for a direct exchange, whose matching key each queue has bound.");
	if (l->matching_bindings > TB_TOPIC_SHAPES * l->symbols && (l->type == TB_TYPE_TOPIC || p->o->all_types))
		return refuse(p, "--matching-bindings for a topic exchange goes up to %u times --symbols (%u here).",
			      TB_TOPIC_SHAPES, TB_TOPIC_SHAPES * l->symbols);
	if (p->cpu_count == 2 && l->threads != 2)
		return refuse(p, "--cpu names two CPUs, but there is one thread: add --threads=2.");
	if (l->duration_ns / TB_MS_NS * l->rate_per_s < 1000)
		return refuse(p, "--duration at this --rate is shorter than one tick.");
	return -1;
}

static int check_rest(struct parse *p)
{
	struct tb_options *o = p->o;

	if (o->echo_only && !o->has_echo)
		return refuse(p, "--echo-only needs --echo HOST:PORT.");
	if (o->echo_only && (o->has_vs || o->find_max))
		return refuse(p, "--echo-only excludes --vs and --find-max.");
	if ((p->has_p99 || p->has_tries) && !o->find_max)
		return refuse(p, "--find-max-p99-ms and --find-max-tries need --find-max.");
	if (o->find_max && (o->svg || o->hgrm || o->histogram))
		return refuse(p, "--find-max runs many loads: --svg, --hgrm and --histogram do not apply.");
	if (o->quiet && (o->histogram || o->load.progress))
		return refuse(p, "--quiet contradicts --histogram and --progress.");
	if (p->has_address && (p->host || p->port))
		return refuse(p, "name the broker as HOST:PORT or with --host and --port, not both.");
	return -1;
}

static bool is_ipv4(const struct tb_endpoint *e)
{
	uint8_t addr[4];

	return inet_pton(AF_INET, e->host, addr) == 1;
}

/* What a device that is polled by one thread, with no kernel behind it, cannot do. */
static int check_port(struct parse *p)
{
	struct tb_options *o = p->o;

	if (!o->port.device[0] && p->port_option)
		return refuse(p, "--%s has no meaning without a device: name it with --port.", p->port_option);
	if (!o->port.device[0])
		return -1;
	if (strncmp(o->port.device, "net_ring", 8) == 0)
		return refuse(p, "a net_ring lies within one process, and the broker is another: take memif.");
	if (!is_ipv4(&o->load.broker) || (o->has_vs && !is_ipv4(&o->vs)))
		return refuse(p, "over a DPDK device the broker is named by its IPv4 address, not '%s'.",
			      is_ipv4(&o->load.broker) ? o->vs.text : o->load.broker.text);
	if (o->load.threads == 2)
		return refuse(p, "--threads 2 does not go with a DPDK device: one thread polls it.");
	if (!o->load.busy_poll)
		return refuse(p, "--poll epoll does not go with a DPDK device: nothing wakes who sleeps.");
	if (o->has_echo)
		return refuse(p, "--echo goes through the kernel and is no floor of a DPDK device: leave it out.");
	if (o->load.cpus[0] >= 0)
		return refuse(p, "a DPDK device is polled by the CPU of --port-core: leave --cpu out.");
	return -1;
}

static const char *from_environment(const char *name, const char *otherwise)
{
	const char *value = getenv(name);

	return value && value[0] ? value : otherwise;
}

static int take_address(struct parse *p, int argc, char **argv)
{
	struct tb_endpoint *e = &p->o->load.broker;
	char text[sizeof(e->host) + 16];

	if (argc - optind > 1)
		return refuse(p, "one broker at a time: '%s' is one too many (a second one goes with --vs).", argv[optind + 1]);
	if (optind < argc) {
		p->has_address = true;
		if (!tb_endpoint_parse(e, argv[optind], "5672"))
			return refuse(p, "a broker is named HOST:PORT (an IPv6 address in brackets), not '%s'.", argv[optind]);
		return -1;
	}
	const char *host = p->host ? p->host : from_environment("AMQP_HOST", "127.0.0.1");
	/* A port from there belongs to that host alone. */
	const char *port = p->port ? p->port : p->host ? "5672" : from_environment("AMQP_PORT", "5672");
	snprintf(text, sizeof(text), strchr(host, ':') ? "[%.255s]:%.6s" : "%.255s:%.6s", host, port);
	if (!tb_endpoint_parse(e, text, "5672"))
		return refuse(p, "--host and --port (or AMQP_HOST and AMQP_PORT) name no endpoint: '%s'.", text);
	return -1;
}

static void set_defaults(struct tb_options *o)
{
	memset(o, 0, sizeof(*o));
	o->load = (struct tb_load){.via = &tb_sockets,
				   .login = {.user = "guest", .password = "guest", .vhost = "/"},
				   .subscribers = 1,
				   .rate_per_s = 1000,
				   .size_bytes = 64,
				   .symbols = 1,
				   .duration_ns = 5 * TB_SECOND_NS,
				   .warmup_ns = TB_SECOND_NS,
				   .drain_ns = 3 * TB_SECOND_NS,
				   .burst = 1,
				   .busy_poll = true,
				   .threads = 1,
				   .cpus = {-1, -1}};
	o->port = (struct tb_port_options){.ip = {198, 18, 0, 1}, .prefix_len = 24};
	o->rounds = 1;
	o->find_max_tries = 2;
	o->find_max_p99_ns = 10 * TB_MS_NS;
}

static int take_one(struct parse *p, int id, const char *text)
{
	const char *name = option_texts[id - OPT_NONE - 1].name;
	int rc = take_target(p, id, name, text);

	if (rc < 0)
		rc = take_port(p, id, name, text);
	if (rc < 0)
		rc = take_load(p, id, name, text);
	return rc < 0 ? take_other(p, id, name, text) : rc;
}

int tb_options_parse(struct tb_options *o, int argc, char **argv, FILE *out, FILE *err)
{
	struct parse p = {.o = o, .err = err};
	struct option table[OPTION_COUNT + 1] = {0};
	int id, rc = -1;

	set_defaults(o);
	for (int i = 0; i < OPTION_COUNT; i++)
		table[i] = (struct option){option_texts[i].name, option_texts[i].argument ? required_argument : no_argument, NULL,
					   OPT_NONE + 1 + i};
	optind = 0; /* start afresh: tests parse more than once */
	opterr = 0;
	while (rc < 0 && (id = getopt_long(argc, argv, ":", table, NULL)) != -1) {
		if (id == OPT_HELP || id == OPT_VERSION) {
			if (id == OPT_HELP)
				print_help(out);
			else
				fprintf(out, "tickbench %s\n", TICKWIRE_VERSION);
			return TB_EXIT_OK;
		}
		if (id == ':')
			rc = refuse(&p, "%s needs a value; see --help.", argv[optind - 1]);
		else if (id == '?')
			rc = refuse(&p, "there is no option '%s' that can be used like this; see --help.", argv[optind - 1]);
		else
			rc = take_one(&p, id, optarg);
	}
	if (rc < 0)
		rc = take_address(&p, argc, argv);
	if (rc < 0)
		rc = check_load(&p);
	if (rc < 0)
		rc = check_port(&p);
	return rc < 0 ? check_rest(&p) : rc;
}
