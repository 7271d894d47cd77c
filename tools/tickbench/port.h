/* A DPDK device in place of the kernel's network: the broker is reached over it by a TCP stack of our own.
 * Runs inside tickbench-dpdk (port.c); tickbench itself is plain, and hands over to that program (port_exec.c).
 * Specification: DPDK's own syntax for devices; transport.h for what a connection is. */
#ifndef TICKBENCH_PORT_H
#define TICKBENCH_PORT_H

#include "tools/tickbench/transport.h"

#define TB_PORT_DEVICE_BYTES 512

struct tb_port_options {
	char device[TB_PORT_DEVICE_BYTES]; /* as DPDK wants it, the short form written out; empty: kernel sockets */
	bool pci;                          /* a PCI address, and no virtual device */
	uint8_t ip[4], prefix_len, gateway[4];
	uint32_t mtu; /* 0: the device's own */
	int core;
	const char *eal; /* further arguments, separated by blanks; NULL: none */
};

/* Takes the device over and stores the transport over it. argv is the program's own.
 * Errors: an exit status, after one sentence on standard error; 0: done. */
int tb_port_open(const struct tb_port_options *o, char **argv, const struct tb_transport **via);
/* Gives the device back. */
void tb_port_close(void);

/* Writes a device's short form out and tells a PCI address from a virtual device. Errors: false. */
bool tb_port_device(struct tb_port_options *o, const char *text);

#endif
