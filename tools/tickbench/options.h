/* The command line of tickbench, checked.
 * Runs once, before anything else.
 * Specification: GNU long options; exit statuses of sysexits.h. */
#ifndef TICKBENCH_OPTIONS_H
#define TICKBENCH_OPTIONS_H

#include "tools/tickbench/load.h"
#include "tools/tickbench/port.h"

#include <stdio.h>

#define TB_SUBSCRIBERS_MAX 4096u
#define TB_RATE_MAX        UINT64_C(10000000)
#define TB_SIZE_MAX_BYTES  (16u * 1024 * 1024)
#define TB_SYMBOLS_MAX     65536u
#define TB_BINDINGS_MAX    100000u

struct tb_options {
	struct tb_load load; /* the type is the first of those to run */
	struct tb_port_options port;
	bool all_types;
	bool has_vs;
	bool has_echo;
	bool echo_only;
	bool find_max;
	uint32_t find_max_tries;
	uint64_t find_max_p99_ns;
	uint32_t rounds;
	struct tb_endpoint vs;
	struct tb_endpoint echo;
	const char *before; /* shell command; what is about to be measured is added as its last word */
	const char *json;
	const char *hgrm;
	const char *svg;
	bool histogram;
	bool quiet;
};

/* Reads and checks the command line. Returns -1 to go on, or the exit status to leave with (0 after --help);
 * help goes to out, complaints, one sentence each, to err. */
int tb_options_parse(struct tb_options *o, int argc, char **argv, FILE *out, FILE *err);

/* Takes HOST:PORT, [IPV6]:PORT or HOST (with the default port) apart. Errors: false. */
bool tb_endpoint_parse(struct tb_endpoint *e, const char *text, const char *default_port);

#endif
