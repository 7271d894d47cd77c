/* tickbench without DPDK: a device is the matter of tickbench-dpdk, which lies beside this program or in PATH.
 * Runs once, after the command line was found good.
 * Specification: none; the arguments are handed on as they are. */
#include "tools/tickbench/conn.h"
#include "tools/tickbench/port.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM "tickbench-dpdk"

int tb_port_open(const struct tb_port_options *o, char **argv, const struct tb_transport **via)
{
	char path[PATH_MAX + sizeof(PROGRAM)];
	ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);

	(void)o;
	(void)via;
	path[length > 0 ? length : 0] = '\0';
	char *slash = strrchr(path, '/');
	argv[0] = (char *)PROGRAM;
	if (slash) {
		strcpy(slash + 1, PROGRAM);
		execv(path, argv);
	}
	execvp(PROGRAM, argv);
	fprintf(stderr,
		"tickbench: a DPDK device needs the program " PROGRAM ", and it cannot be run (%s): it is built and installed with "
		"tickwire-dataplane.\n",
		strerror(errno));
	return TB_EXIT_UNAVAILABLE;
}

void tb_port_close(void) {}
