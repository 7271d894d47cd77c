/*
 * options.h - what control is told by its configuration file.
 *
 * Owns: the options, users and vhosts of one reading of the file.
 * Core: start-up and reload.
 * Spec: control/README.md lists the keys.
 */
#ifndef TICKWIRE_CTL_OPTIONS_H
#define TICKWIRE_CTL_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/access.h"

#define CTL_DEFAULT_CONFIG "/etc/tickwire/tickwire.conf"
#define CTL_VHOSTS_MAX     256u

struct ctl_options {
	char dataplane_socket[108], cli_socket[108], data_dir[4000], log_file[4000];
	uint32_t log_level;
	uint64_t store_bytes;
	bool store_sync;
	uint32_t hyperscan_min_rules, compile_settle_ms, compile_wait_max_ms;
	struct ctl_users users;
	char (*vhost)[256];
	uint32_t vhosts_count;
};
/* Errors: false and a sentence with file, line, cause and cure. */
bool ctl_options_load(struct ctl_options *o, const char *path, char *err, size_t err_bytes);
void ctl_options_free(struct ctl_options *o);

#endif
