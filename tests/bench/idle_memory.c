/*
 * idle_memory.c - what one idle connection with one open channel costs in the whole broker.
 *
 * Owns: nothing; asks the libraries for the size of their memory with N and with 2 N connections and channels, and measures on a
 * real machine what a handshake leaves in the message pool. Core: a test program. Spec: the bound of 32 KiB (README of
 * tests/bench).
 */
#include <stdio.h>
#include <string.h>

#include "amqp/amqp.h"
#include "tcpstack/tcpstack.h"

#define CONNS 1024u
#define BOUND 32768u

static size_t tcp_bytes(uint32_t conns)
{
	struct tcps_config cfg;

	memset(&cfg, 0, sizeof cfg);
	cfg.conns_max = conns;
	cfg.half_open_max = 1024;
	cfg.time_wait_max = 1024;
	cfg.listeners_max = 4;
	cfg.neighbours_max = 64;
	cfg.blocks_max = 1024;
	cfg.mtu = 1500;
	cfg.send_high_water_bytes = 262144;
	cfg.recv_window_bytes = 65536;
	return tcps_mem_bytes(&cfg);
}

static size_t amqp_bytes(uint32_t conns, uint32_t channels)
{
	struct amqp_limits limits;

	amqp_limits_default(&limits);
	limits.conns_max = conns;
	limits.channels_max = channels;
	return amqp_broker_bytes(&limits);
}

int main(void)
{
	size_t tcp = (tcp_bytes(2 * CONNS) - tcp_bytes(CONNS)) / CONNS;
	size_t conn = (amqp_bytes(2 * CONNS, CONNS) - amqp_bytes(CONNS, CONNS)) / CONNS;
	size_t channel = (amqp_bytes(CONNS, 2 * CONNS) - amqp_bytes(CONNS, CONNS)) / CONNS;
	size_t sum = tcp + conn + channel;

	printf("1..1\n# idle connection, bytes: tcp %zu, amqp connection %zu, one channel %zu: fixed part %zu\n", tcp, conn,
	       channel, sum);
	printf("%s 1 - the fixed part of an idle connection with a channel is %zu bytes, under %u\n",
	       sum <= BOUND ? "ok" : "not ok", sum, BOUND);
	return sum <= BOUND ? 0 : 1;
}
