/*
 * options.h - the dataplane's own options, from the command line and from section [dataplane] of a file.
 *
 * Owns: `struct dp_options`, checked as a whole before anything is started.
 * Core: the main thread, at start.
 * Spec: options.def; exit statuses of sysexits.h, as rabbitmqctl uses them.
 */
#ifndef TICKWIRE_DP_OPTIONS_H
#define TICKWIRE_DP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tcpstack/tcpstack.h"

#define DP_EX_USAGE       64 /* an option is unknown or malformed */
#define DP_EX_UNAVAILABLE 69 /* the machine does not give what is needed: privilege, memory, a port, the socket's path */
#define DP_EX_SOFTWARE    70
#define DP_EX_CONFIG      78 /* a file's content is wrong, or options contradict each other or the machine */

enum dp_idle { DP_IDLE_POLL, DP_IDLE_ADAPTIVE };
enum dp_offload { DP_OFFLOAD_AUTO, DP_OFFLOAD_ON, DP_OFFLOAD_OFF };

struct dp_ipv4_prefix {
	uint8_t addr[4];
	uint32_t len;
};

struct dp_ipv6_prefix {
	uint8_t addr[16];
	uint32_t len;
};

struct dp_routes {
	struct tcps_route entry[TCPS_ROUTES_MAX];
	uint32_t count;
};

#define DP_EAL_ARGS_MAX 64u

/* 0 in a limit: the AMQP machine's own default. */
struct dp_options {
	struct dp_ipv4_prefix ipv4;
	uint8_t gateway[4];
	struct dp_ipv6_prefix ipv6;
	uint8_t gateway6[16];
	struct dp_routes routes;
	uint32_t vlan, mss; /* 0: none */
	uint8_t mac[6];
	uint32_t mtu, amqp_port, workers, idle_after_us, sample_every;
	char socket_path[108], config_path[512], eal_line[2048];
	uint32_t connections, channels, consumers, exchanges, queues, bindings, messages;
	uint64_t messages_memory, message_max, tcp_memory, database_memory;
	uint32_t idle;            /* enum dp_idle */
	uint32_t tso, multi_segs; /* enum dp_offload */
	uint32_t log_level;       /* enum dp_log_level */
	bool udp_echo, arp_probe, help, version;

	uint64_t given; /* bit an option of options.def, from wherever it came */
	int eal_argc;   /* argv[0] included */
	char *eal_argv[DP_EAL_ARGS_MAX + 1];
};

/* True when the option was given, e.g. dp_options_given(o, "mac"). */
bool dp_options_given(const struct dp_options *o, const char *name);
/*
 * Reads `program [EAL options] -- own options`, or own options alone when there is no lone `--`, and the file that --config
 * names. Strings of EAL arguments point into argv or into *o. Errors: an exit status, and a sentence with cause and cure.
 */
int dp_options_parse(struct dp_options *o, int argc, char **argv, char *err, size_t err_bytes);
void dp_options_help(FILE *to);

#endif
