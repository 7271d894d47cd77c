/* Names of DPDK devices as they are typed, and as DPDK wants them.
 * Runs once, with the command line.
 * Specification: DPDK's --vdev and --allow; the PCI address of lspci, with or without its domain. */
#include "tools/tickbench/port.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMIF_SOCKET "/run/tickwire/memif.sock"

/* [DOMAIN:]BUS:DEVICE.FUNCTION, in hexadecimal, and arguments for the driver behind a comma. */
static bool is_pci(const char *text)
{
	unsigned domain, bus, device, function;
	int used = 0;

	if (sscanf(text, "%4x:%2x:%2x.%1x%n", &domain, &bus, &device, &function, &used) != 4 &&
	    sscanf(text, "%2x:%2x.%1x%n", &bus, &device, &function, &used) != 3)
		return false;
	return text[used] == '\0' || text[used] == ',';
}

static bool names_key(const char *arguments, const char *key)
{
	for (const char *at = arguments; (at = strchr(at, ',')) != NULL; at++)
		if (strncmp(at + 1, key, strlen(key)) == 0)
			return true;
	return false;
}

/* memif[,KEY=VALUE]...: the client's end; the socket is the lab's where its `exec` runs us. A socket of the file system is
 * reached from any network namespace, an abstract one from its own alone. */
static bool write_memif(struct tb_port_options *o, const char *arguments)
{
	const char *path = getenv("TICKWIRE_MEMIF");
	bool own = names_key(arguments, "socket=");
	int n = snprintf(o->device, sizeof(o->device), "net_memif0%s%s%s%s%s", names_key(arguments, "role=") ? "" : ",role=client",
			 own ? "" : ",socket=",
			 own               ? ""
			 : path && path[0] ? path
					   : MEMIF_SOCKET,
			 names_key(arguments, "socket-abstract=") ? "" : ",socket-abstract=no", arguments);

	return n > 0 && (size_t)n < sizeof(o->device);
}

bool tb_port_device(struct tb_port_options *o, const char *text)
{
	size_t length = strlen(text);

	o->pci = is_pci(text);
	if (strncmp(text, "memif", 5) == 0 && (text[5] == '\0' || text[5] == ','))
		return write_memif(o, text + 5);
	if ((!o->pci && (strncmp(text, "net_", 4) != 0 || !islower((unsigned char)text[4]))) || length >= sizeof(o->device))
		return false;
	memcpy(o->device, text, length + 1);
	return true;
}
