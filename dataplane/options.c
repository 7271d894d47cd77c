/*
 * options.c - the dataplane's own options, from the command line and from section [dataplane] of a file.
 *
 * Owns: `struct dp_options`, checked as a whole before anything is started.
 * Core: the main thread, at start.
 * Spec: options.def; exit statuses of sysexits.h, as rabbitmqctl uses them.
 */
#include "dataplane/options.h"

#include <stdarg.h>
#include <string.h>

#include "amqp/amqp.h"
#include "control/conf.h"
#include "dataplane/log.h"
#include "dataplane/values.h"

enum kind { FLAG, U32, SIZE, SIZE_POWER, IPV4, IPV4_PREFIX, IPV6, IPV6_PREFIX, ROUTES, MAC, PATH, TEXT, IDLE, OFFLOAD, LOG_LEVEL };

struct option {
	const char *name;
	enum kind kind;
	size_t offset, bytes; /* of the field */
	uint64_t least, most;
	const char *argument, *help;
};

static const struct option options[] = {
#define DP_OPTION(name, kind, field, least, most, argument, help)                                                                  \
	{name, kind, offsetof(struct dp_options, field), sizeof(((struct dp_options *)0)->field), least, most, argument, help},
#include "dataplane/options.def"
#undef DP_OPTION
};
#define OPTIONS_COUNT (sizeof options / sizeof options[0])
_Static_assert(OPTIONS_COUNT <= 64, "dp_options.given has a bit for every option");

static const char *const idle_words[] = {[DP_IDLE_POLL] = "poll", [DP_IDLE_ADAPTIVE] = "adaptive", NULL};
static const char *const offload_words[] = {[DP_OFFLOAD_AUTO] = "auto", [DP_OFFLOAD_ON] = "on", [DP_OFFLOAD_OFF] = "off", NULL};
static const char *const log_level_words[] = {
	[DP_LOG_ERROR] = "error", [DP_LOG_WARNING] = "warning", [DP_LOG_INFO] = "info", [DP_LOG_DEBUG] = "debug", NULL};

struct problem {
	char *text;
	size_t bytes;
};

static bool problem(struct problem *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Always false, so that a check can end with it. */
static bool problem(struct problem *p, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(p->text, p->bytes, format, args);
	va_end(args);
	return false;
}

static const struct option *find(const char *name, size_t len)
{
	for (size_t i = 0; i < OPTIONS_COUNT; i++)
		if (strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0)
			return &options[i];
	return NULL;
}

static uint64_t bit_of(const struct option *opt)
{
	return 1ull << (opt - options);
}

bool dp_options_given(const struct dp_options *o, const char *name)
{
	const struct option *opt = find(name, strlen(name));

	return opt != NULL && (o->given & bit_of(opt)) != 0;
}

/* ---- values ---- */

static bool set_number(const struct option *opt, void *field, const char *text, struct problem *p)
{
	uint64_t n;

	if (!dp_value_number(text, &n) || n < opt->least || n > opt->most)
		return problem(p, "'%s' is no number from %llu to %llu", text, (unsigned long long)opt->least,
			       (unsigned long long)opt->most);
	*(uint32_t *)field = (uint32_t)n;
	return true;
}

static bool set_size(const struct option *opt, void *field, const char *text, struct problem *p)
{
	uint64_t n;

	if (!dp_value_size(text, &n))
		return problem(p, "'%s' is no size: write bytes, or a number with K, M, G or T", text);
	if (n < opt->least || n > opt->most)
		return problem(p, "%s is not between %llu and %llu bytes", text, (unsigned long long)opt->least,
			       (unsigned long long)opt->most);
	if (opt->kind == SIZE_POWER && (n & (n - 1)) != 0)
		return problem(p, "%s is no power of two: take 128M, 256M, 512M, …", text);
	*(uint64_t *)field = n;
	return true;
}

static bool set_word(const char *const *words, void *field, const char *text, struct problem *p)
{
	for (uint32_t i = 0; words[i] != NULL; i++)
		if (strcmp(words[i], text) == 0) {
			*(uint32_t *)field = i;
			return true;
		}
	return problem(p, "'%s' is none of its words (see --help)", text);
}

static bool set_prefix(struct dp_ipv4_prefix *field, const char *text, struct problem *p)
{
	const char *slash = strchr(text, '/');
	char addr[sizeof "255.255.255.255"];
	uint64_t len;

	if (slash == NULL || (size_t)(slash - text) >= sizeof addr)
		return problem(p, "'%s' is no address with a prefix length: write it as 198.18.0.2/24", text);
	memcpy(addr, text, (size_t)(slash - text));
	addr[slash - text] = '\0';
	if (!dp_value_ipv4(addr, field->addr) || !dp_value_number(slash + 1, &len) || len < 1 || len > 32)
		return problem(p, "'%s' is no address with a prefix length from 1 to 32: write it as 198.18.0.2/24", text);
	field->len = (uint32_t)len;
	return true;
}

/* "ADDR/LEN" of either family. False: it is none. */
static bool read_prefix(const char *text, struct tcps_addr *addr, uint8_t *len)
{
	const char *slash = strchr(text, '/');
	char head[sizeof "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255"];
	uint64_t n;

	if (slash == NULL || (size_t)(slash - text) >= sizeof head)
		return false;
	memcpy(head, text, (size_t)(slash - text));
	head[slash - text] = '\0';
	memset(addr, 0, sizeof *addr);
	addr->family = strchr(head, ':') == NULL ? 4 : 6;
	if (!(addr->family == 4 ? dp_value_ipv4(head, addr->bytes) : dp_value_ipv6(head, addr->bytes)) ||
	    !dp_value_number(slash + 1, &n) || n > (addr->family == 4 ? 32u : 128u))
		return false;
	*len = (uint8_t)n;
	return true;
}

static bool set_prefix6(struct dp_ipv6_prefix *field, const char *text, struct problem *p)
{
	struct tcps_addr addr;
	uint8_t len;

	if (!read_prefix(text, &addr, &len) || addr.family != 6 || len == 0)
		return problem(p, "'%s' is no IPv6 address with a prefix length from 1 to 128: write it as 2001:db8::2/64", text);
	memcpy(field->addr, addr.bytes, 16);
	field->len = len;
	return true;
}

/* One "PREFIX/LEN,GATEWAY"; `text` is cut at the comma. */
static bool add_route(struct dp_routes *routes, char *text, struct problem *p)
{
	struct tcps_route r = {.prefix_len = 0};
	char *comma = strchr(text, ',');

	if (routes->count == TCPS_ROUTES_MAX)
		return problem(p, "more than %u routes", TCPS_ROUTES_MAX);
	if (comma != NULL)
		*comma = '\0';
	if (comma == NULL || !read_prefix(text, &r.prefix, &r.prefix_len))
		return problem(p, "'%s' is no route: write it as 203.0.113.0/24,192.0.2.1", text);
	r.gateway.family = r.prefix.family;
	if (!(r.prefix.family == 4 ? dp_value_ipv4(comma + 1, r.gateway.bytes) : dp_value_ipv6(comma + 1, r.gateway.bytes)))
		return problem(p, "'%s' is no IPv%u address, as its network is", comma + 1, r.prefix.family);
	for (unsigned bit = r.prefix_len; bit < (r.prefix.family == 4 ? 32u : 128u); bit++)
		if ((r.prefix.bytes[bit / 8] & (0x80u >> bit % 8)) != 0)
			return problem(p, "'%s/%u' has bits behind its length: it is a host, not a network", text, r.prefix_len);
	routes->entry[routes->count++] = r;
	return true;
}

/* Several stand apart by blanks: a key stands only once in a file. */
static bool set_routes(struct dp_routes *routes, const char *text, struct problem *p)
{
	char words[2048], *at = words, *word;

	if (strlen(text) >= sizeof words)
		return problem(p, "it is longer than %zu bytes", sizeof words - 1);
	memcpy(words, text, strlen(text) + 1);
	if (words[strspn(words, " \t")] == '\0')
		return problem(p, "it is empty");
	while ((word = strsep(&at, " \t")) != NULL)
		if (*word != '\0' && !add_route(routes, word, p))
			return false;
	return true;
}

static bool set_text(const struct option *opt, void *field, const char *text, struct problem *p)
{
	if (text[0] == '\0')
		return problem(p, "it is empty");
	if (strlen(text) >= opt->bytes)
		return problem(p, "it is longer than %zu bytes", opt->bytes - 1);
	memcpy(field, text, strlen(text) + 1);
	return true;
}

static bool set_value(struct dp_options *o, const struct option *opt, const char *text, struct problem *p)
{
	void *field = (char *)o + opt->offset;

	switch (opt->kind) {
	case FLAG:
		return dp_value_bool(text, field) || problem(p, "'%s' is neither yes nor no", text);
	case U32:
		return set_number(opt, field, text, p);
	case SIZE:
	case SIZE_POWER:
		return set_size(opt, field, text, p);
	case IPV4:
		return dp_value_ipv4(text, field) || problem(p, "'%s' is no IPv4 address", text);
	case IPV4_PREFIX:
		return set_prefix(field, text, p);
	case IPV6:
		return dp_value_ipv6(text, field) || problem(p, "'%s' is no IPv6 address", text);
	case IPV6_PREFIX:
		return set_prefix6(field, text, p);
	case ROUTES:
		return set_routes(field, text, p);
	case MAC:
		return dp_value_mac(text, field) || problem(p, "'%s' is no Ethernet address: write it as 02:54:57:00:00:02", text);
	case IDLE:
		return set_word(idle_words, field, text, p);
	case OFFLOAD:
		return set_word(offload_words, field, text, p);
	case LOG_LEVEL:
		return set_word(log_level_words, field, text, p);
	case PATH:
	case TEXT:
		return set_text(opt, field, text, p);
	}
	return false;
}

/* ---- the command line ---- */

/* One option at argv[*at]; `value` spans may come in the same word or the next. */
static bool read_option(struct dp_options *o, int argc, char **argv, int *at, struct problem *p)
{
	const char *word = argv[*at], *equals = strchr(word, '='), *value;
	const struct option *opt;
	char why[256];
	struct problem inner = {why, sizeof why};

	if (strncmp(word, "--", 2) != 0)
		return problem(p, "'%s' is no option: own options begin with --, and DPDK's go before a lone --", word);
	opt = find(word + 2, equals ? (size_t)(equals - word) - 2 : strlen(word) - 2);
	if (opt == NULL)
		return problem(p, "unknown option %s: --help lists them; DPDK's own options go before a lone --", word);
	if ((o->given & bit_of(opt)) != 0 && opt->kind != ROUTES)
		return problem(p, "--%s is given twice: leave one of them", opt->name);
	if (opt->kind == FLAG) {
		if (equals != NULL)
			return problem(p, "--%s takes no value", opt->name);
		value = "yes";
	} else if (equals != NULL) {
		value = equals + 1;
	} else if (*at + 1 < argc) {
		value = argv[++*at];
	} else {
		return problem(p, "--%s needs a value: --%s %s", opt->name, opt->name, opt->argument);
	}
	if (!set_value(o, opt, value, &inner))
		return problem(p, "--%s: %s", opt->name, why);
	o->given |= bit_of(opt);
	return true;
}

static bool add_eal(struct dp_options *o, char *argument, struct problem *p)
{
	if (o->eal_argc == (int)DP_EAL_ARGS_MAX)
		return problem(p, "more than %u DPDK arguments", DP_EAL_ARGS_MAX - 1);
	o->eal_argv[o->eal_argc++] = argument;
	o->eal_argv[o->eal_argc] = NULL;
	return true;
}

/* Splits `eal = …` at blanks, in place; quotes of either kind keep blanks together. */
static bool split_eal(struct dp_options *o, struct problem *p)
{
	char *from = o->eal_line, *to, *word;

	while (*(from += strspn(from, " \t")) != '\0') {
		char quote = '\0';

		for (word = to = from; *from != '\0' && (quote != '\0' || (*from != ' ' && *from != '\t')); from++) {
			if (quote == '\0' && (*from == '"' || *from == '\''))
				quote = *from;
			else if (*from == quote)
				quote = '\0';
			else
				*to++ = *from;
		}
		if (quote != '\0')
			return problem(p, "eal: a quote (%c) is not closed", quote);
		if (*from != '\0')
			from++;
		*to = '\0';
		if (!add_eal(o, word, p))
			return false;
	}
	return true;
}

/* ---- the file ---- */

/* One `key = value` of section [dataplane]; `command_line` has the options that were given there and come before the file. */
static bool read_key(struct dp_options *o, uint64_t command_line, const struct ctl_conf_item *it, struct problem *p)
{
	const struct option *opt = find(it->key, strlen(it->key));
	char why[256];
	struct problem inner = {why, sizeof why};

	if (opt == NULL || strcmp(it->key, "config") == 0 || strcmp(it->key, "help") == 0 || strcmp(it->key, "version") == 0)
		return problem(p, "%s:%u: unknown key '%.60s' in [dataplane]: tickwire-dataplane --help lists them", o->config_path,
			       it->line, it->key);
	if (command_line & bit_of(opt))
		return true;
	if (!set_value(o, opt, it->value, &inner))
		return problem(p, "%s:%u: %s: %s", o->config_path, it->line, it->key, why);
	o->given |= bit_of(opt);
	return true;
}

/* Other sections of the file are control's, which checks them; ours must be there, so that a misspelt one is noticed. */
static bool load_file(struct dp_options *o, struct problem *p)
{
	uint64_t command_line = o->given;
	bool ok = true, found = false;
	struct ctl_conf conf;

	if (!ctl_conf_load(&conf, o->config_path, p->text, p->bytes))
		return false;
	for (size_t i = 0; ok && i < conf.count; i++) {
		if (strcmp(conf.items[i].section, "dataplane") != 0)
			continue;
		found = true;
		if (conf.items[i].name[0] != '\0')
			ok = problem(p, "%s:%u: section [dataplane] takes no name", o->config_path, conf.items[i].line);
		else if (conf.items[i].key[0] != '\0')
			ok = read_key(o, command_line, &conf.items[i], p);
	}
	if (ok && !found)
		ok = problem(p, "%s has no section [dataplane]: add one, or name another file with --config", o->config_path);
	ctl_conf_free(&conf);
	return ok;
}

/* ---- the whole ---- */

static uint32_t host_order(const uint8_t a[4])
{
	return (uint32_t)a[0] << 24 | (uint32_t)a[1] << 16 | (uint32_t)a[2] << 8 | a[3];
}

static bool in_network(const uint8_t *a, const uint8_t *b, unsigned len)
{
	for (unsigned bit = 0; bit < len; bit++)
		if (((a[bit / 8] ^ b[bit / 8]) & (0x80u >> bit % 8)) != 0)
			return false;
	return true;
}

static bool is_link_local(const uint8_t addr[16])
{
	return addr[0] == 0xfe && (addr[1] & 0xc0) == 0x80;
}

/* A host of our own network, and not us. */
static bool is_neighbour(const struct dp_options *o, const struct tcps_addr *a)
{
	if (a->family == 4)
		return in_network(a->bytes, o->ipv4.addr, o->ipv4.len) && memcmp(a->bytes, o->ipv4.addr, 4) != 0;
	return dp_options_given(o, "ipv6") && (is_link_local(a->bytes) || in_network(a->bytes, o->ipv6.addr, o->ipv6.len)) &&
	       memcmp(a->bytes, o->ipv6.addr, 16) != 0;
}

static bool check_ipv6(const struct dp_options *o, struct problem *p)
{
	struct tcps_addr gateway = {.family = 6};
	const uint8_t *a = o->ipv6.addr;

	memcpy(gateway.bytes, o->gateway6, 16);
	if (dp_options_given(o, "gateway6") && !dp_options_given(o, "ipv6"))
		return problem(p, "--gateway6 needs an address of our own: add --ipv6 ADDR/LEN");
	if (!dp_options_given(o, "ipv6"))
		return true;
	/* As tcps_init() has it: unspecified, loopback and mapped ones begin with 0; the link-local one is made from the MAC. */
	if (a[0] == 0 || a[0] == 0xff || (a[0] == 0xfe && (a[1] & 0x80) != 0))
		return problem(p, "--ipv6: a broker cannot have this address (unspecified, loopback, multicast or link-local; the "
				  "link-local one comes by itself)");
	if (dp_options_given(o, "mtu") && o->mtu < 1280)
		return problem(p, "--mtu %u contradicts --ipv6: IPv6 needs links of at least 1280 bytes", o->mtu);
	if (dp_options_given(o, "gateway6") && !is_neighbour(o, &gateway))
		return problem(
			p, "--gateway6 contradicts --ipv6: it must be another host of the same network, or a link-local address");
	return true;
}

static bool check_routes(const struct dp_options *o, struct problem *p)
{
	for (uint32_t i = 0; i < o->routes.count; i++) {
		const struct tcps_route *r = &o->routes.entry[i];

		if (r->prefix.family == 6 && !dp_options_given(o, "ipv6"))
			return problem(p, "--route: an IPv6 network needs an address of our own: add --ipv6 ADDR/LEN");
		if (!is_neighbour(o, &r->gateway))
			return problem(p, "--route: its gateway (number %u) must be another host of our own network", i + 1);
	}
	return true;
}

static bool check_addresses(const struct dp_options *o, struct problem *p)
{
	uint32_t ip = host_order(o->ipv4.addr), mask = o->ipv4.len == 0 ? 0 : ~0u << (32 - o->ipv4.len),
		 gateway = host_order(o->gateway);

	if (!dp_options_given(o, "ip"))
		return problem(p, "the broker has no address: give one with --ip A.B.C.D/LEN");
	if (ip >> 24 == 0 || ip >> 24 == 127 || ip >> 28 >= 14)
		return problem(p, "--ip: a broker cannot have this address (this network, loopback, multicast or reserved)");
	if (o->ipv4.len <= 30 && ((ip & ~mask) == 0 || (ip & ~mask) == ~mask))
		return problem(p, "--ip: this is the %s address of its network, not a host's",
			       (ip & ~mask) == 0 ? "first" : "broadcast");
	if (dp_options_given(o, "gateway") && ((gateway & mask) != (ip & mask) || gateway == ip))
		return problem(p, "--gateway contradicts --ip: it must be another host of the same network");
	if (o->udp_echo && o->vlan != 0)
		return problem(p, "--udp-echo contradicts --vlan: the echo answers untagged frames at the border");
	if (!check_ipv6(o, p) || !check_routes(o, p))
		return false;
	if (dp_options_given(o, "mac") && ((o->mac[0] & 1) != 0 || memcmp(o->mac, "\0\0\0\0\0", 6) == 0))
		return problem(p, "--mac: a host cannot have this address (group or all zero)");
	return true;
}

static bool check_whole(const struct dp_options *o, struct problem *p)
{
	struct amqp_limits usual;
	uint64_t memory, largest;

	if (o->workers > 1 && o->udp_echo)
		return problem(p, "--udp-echo contradicts --workers %u: the echo measures the port with one worker", o->workers);
	if (o->idle == DP_IDLE_POLL && dp_options_given(o, "idle-after-us"))
		return problem(p,
			       "--idle-after-us contradicts --idle poll, which never sleeps: add --idle adaptive or leave it out");
	amqp_limits_default(&usual);
	memory = o->messages_memory != 0 ? o->messages_memory : usual.message_pool_bytes;
	largest = o->message_max != 0 ? o->message_max : usual.message_bytes_max;
	if (largest > memory / 4)
		return problem(p,
			       "--message-max (%llu MiB unless given) is more than a quarter of --messages-memory (%llu MiB "
			       "unless given): lower the one or raise the other",
			       (unsigned long long)usual.message_bytes_max >> 20,
			       (unsigned long long)usual.message_pool_bytes >> 20);
	return check_addresses(o, p);
}

static void set_defaults(struct dp_options *o, char *program)
{
	memset(o, 0, sizeof *o);
	o->amqp_port = 5672;
	o->workers = 1;
	o->idle_after_us = 1000;
	o->sample_every = 64;
	o->tcp_memory = 64u << 20;
	o->database_memory = 256u << 20;
	o->log_level = DP_LOG_INFO;
	snprintf(o->socket_path, sizeof o->socket_path, "/run/tickwire/dataplane.sock");
	o->eal_argv[o->eal_argc++] = program;
}

int dp_options_parse(struct dp_options *o, int argc, char **argv, char *err, size_t err_bytes)
{
	struct problem p = {err, err_bytes};
	int split = 0;

	set_defaults(o, argv[0]);
	for (int i = 1; i < argc && split == 0; i++)
		if (strcmp(argv[i], "--") == 0)
			split = i;
	for (int i = 1; i < split; i++)
		if (!add_eal(o, argv[i], &p))
			return DP_EX_USAGE;
	for (int i = split + 1; i < argc; i++)
		if (!read_option(o, argc, argv, &i, &p))
			return DP_EX_USAGE;
	if (o->help || o->version)
		return 0;
	if (dp_options_given(o, "config") && !load_file(o, &p))
		return DP_EX_CONFIG;
	/* DPDK's arguments on the command line replace the line in the file; both at once on the command line is a slip. */
	if (o->eal_argc == 1 && !split_eal(o, &p))
		return DP_EX_CONFIG;
	return check_whole(o, &p) ? 0 : DP_EX_CONFIG;
}

void dp_options_help(FILE *to)
{
	fputs("tickwire-dataplane - the broker's poll-mode process: Ethernet, TCP and AMQP on cores of its own\n\n"
	      "usage: tickwire-dataplane [DPDK EAL options] -- --ip A.B.C.D/LEN [options]\n"
	      "       tickwire-dataplane --config FILE\n\noptions:\n",
	      to);
	for (size_t i = 0; i < OPTIONS_COUNT; i++) {
		char left[64];

		snprintf(left, sizeof left, "--%s %s", options[i].name, options[i].argument);
		fprintf(to, "  %-34s %s\n", left, options[i].help);
	}
	fputs("\nA limit that is not given has the AMQP machine's own default. Every option but --config, --help and --version "
	      "may\n"
	      "stand in section [dataplane] of FILE as a key without its dashes.\n\n"
	      "exit status: 0 left on a signal, 64 wrong usage, 69 the machine lacks something, 70 a fault of ours, 78 wrong "
	      "configuration\n",
	      to);
}
