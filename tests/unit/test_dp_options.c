/*
 * test_dp_options.c - the dataplane's options: what is taken, what is refused, and with which exit status.
 *
 * Owns: files below a folder of its own in $TMPDIR.
 * Core: the test's only thread.
 * Spec: issue 2, part 2: an unknown or contradictory option is refused with a sentence and exit status 64 or 78.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/log.h"
#include "dataplane/options.h"
#include "dataplane/values.h"

static struct dp_options options;
static char sentence[1024];

/* Parses a blank-separated command line. */
static int parse(const char *line)
{
	static char words[2048];
	char *argv[64] = {(char *)"tickwire-dataplane"};
	int argc = 1;

	snprintf(words, sizeof words, "%s", line);
	for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	memset(sentence, 0, sizeof sentence);
	return dp_options_parse(&options, argc, argv, sentence, sizeof sentence);
}

static void refused(const char *line, int status, const char *says)
{
	int got = parse(line);

	if (got != status || strstr(sentence, says) == NULL)
		fail_msg("'%s' gave %d and \"%s\", not %d and \"…%s…\"", line, got, sentence, status, says);
}

/* Parses with a configuration file of this text, after `before` on the command line. */
static int parse_file(const char *text, const char *before)
{
	char path[] = "/tmp/test_dp_options.??????", line[256];
	int fd, status;

	memset(strchr(path, '?'), 'X', 6);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	snprintf(line, sizeof line, "%s --config %s", before, path);
	status = parse(line);
	unlink(path);
	return status;
}

static void file_refused(const char *text, const char *says)
{
	int got = parse_file(text, "");

	if (got != DP_EX_CONFIG || strstr(sentence, says) == NULL)
		fail_msg("the file gave %d and \"%s\", not 78 and \"…%s…\":\n%s", got, sentence, says, text);
}

static void an_address_alone_is_enough(void **state)
{
	(void)state;
	assert_int_equal(parse("-l 0,1 --no-pci -- --ip 198.18.0.2/24"), 0);
	assert_memory_equal(options.ipv4.addr, "\xc6\x12\x00\x02", 4);
	assert_int_equal(options.ipv4.len, 24);
	assert_int_equal(options.amqp_port, 5672);
	assert_int_equal(options.workers, 1);
	assert_int_equal(options.idle, DP_IDLE_POLL);
	assert_string_equal(options.socket_path, "/run/tickwire/dataplane.sock");
	assert_false(options.udp_echo);
}

static void what_stands_before_the_lone_dashes_goes_to_dpdk(void **state)
{
	(void)state;
	assert_int_equal(parse("-l 0,1 --vdev=net_tap0,iface=tw0 -- --ip 198.18.0.2/24"), 0);
	assert_int_equal(options.eal_argc, 4);
	assert_string_equal(options.eal_argv[0], "tickwire-dataplane");
	assert_string_equal(options.eal_argv[3], "--vdev=net_tap0,iface=tw0");
	assert_null(options.eal_argv[4]);
}

static void every_option_sets_its_field(void **state)
{
	(void)state;
	assert_int_equal(
		parse("-- --ip 10.1.2.1/30 --gateway 10.1.2.2 --mac 02:54:57:00:00:0f --mtu 1400 --amqp-port 5673 --socket /run/x "
		      "--workers 1 --udp-echo --idle adaptive --idle-after-us 77 --sample-every 0 --connections 10 --channels 11 "
		      "--consumers 12 --exchanges 16 --queues 13 --bindings 14 --messages=17 --messages-memory 64M "
		      "--message-max 1M --tcp-memory 8M --database-memory 1M --log-level debug --mss 1300 --arp-probe --tso on "
		      "--multi-segs off"),
		0);
	assert_int_equal(options.mss, 1300);
	assert_int_equal(options.tso, DP_OFFLOAD_ON);
	assert_int_equal(options.multi_segs, DP_OFFLOAD_OFF);
	assert_true(options.arp_probe);
	assert_memory_equal(options.gateway, "\x0a\x01\x02\x02", 4);
	assert_memory_equal(options.mac, "\x02\x54\x57\x00\x00\x0f", 6);
	assert_int_equal(options.mtu, 1400);
	assert_int_equal(options.amqp_port, 5673);
	assert_string_equal(options.socket_path, "/run/x");
	assert_true(options.udp_echo);
	assert_int_equal(options.idle, DP_IDLE_ADAPTIVE);
	assert_int_equal(options.idle_after_us, 77);
	assert_int_equal(options.sample_every, 0);
	assert_int_equal(options.connections, 10);
	assert_int_equal(options.channels, 11);
	assert_int_equal(options.consumers, 12);
	assert_int_equal(options.exchanges, 16);
	assert_int_equal(options.queues, 13);
	assert_int_equal(options.bindings, 14);
	assert_int_equal(options.messages, 17);
	assert_int_equal(options.messages_memory, 64u << 20);
	assert_int_equal(options.message_max, 1u << 20);
	assert_int_equal(options.tcp_memory, 8u << 20);
	assert_int_equal(options.database_memory, 1u << 20);
	assert_int_equal(options.log_level, DP_LOG_DEBUG);
}

static void both_families_routes_and_a_vlan_are_read(void **state)
{
	(void)state;
	assert_int_equal(parse("-- --ip 198.18.0.2/24 --ipv6 2001:2::198.18.0.2/64 --gateway6 fe80::1 --vlan 4094 "
			       "--route 10.0.0.0/8,198.18.0.9 --route 2001:db8::/32,2001:2::9 --route=0.0.0.0/0,198.18.0.8"),
			 0);
	assert_memory_equal(options.ipv6.addr, "\x20\x01\0\x02\0\0\0\0\0\0\0\0\xc6\x12\0\x02", 16);
	assert_int_equal(options.ipv6.len, 64);
	assert_memory_equal(options.gateway6, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x01", 16);
	assert_int_equal(options.vlan, 4094);
	assert_int_equal(options.routes.count, 3);
	assert_int_equal(options.routes.entry[0].prefix.family, 4);
	assert_int_equal(options.routes.entry[0].prefix_len, 8);
	assert_memory_equal(options.routes.entry[0].gateway.bytes, "\xc6\x12\0\x09", 4);
	assert_int_equal(options.routes.entry[1].prefix.family, 6);
	assert_int_equal(options.routes.entry[1].prefix_len, 32);
	assert_int_equal(options.routes.entry[2].prefix_len, 0);
	/* In a file a key stands once: blanks part several. */
	assert_int_equal(parse_file("[dataplane]\nip = 198.18.0.2/24\neal = --no-pci\n"
				    "route = 10.0.0.0/8,198.18.0.9  10.1.0.0/16,198.18.0.8\n",
				    "--"),
			 0);
	assert_int_equal(options.routes.count, 2);
}

static void addresses_routes_and_tags_that_cannot_be_are_refused(void **state)
{
	(void)state;
	refused("-- --ip 198.18.0.2/24 --ipv6 2001:2::2", 64, "no IPv6 address with a prefix length");
	refused("-- --ip 198.18.0.2/24 --ipv6 2001:2::2/129", 64, "from 1 to 128");
	refused("-- --ip 198.18.0.2/24 --ipv6 2001:2::2/0", 64, "from 1 to 128");
	refused("-- --ip 198.18.0.2/24 --ipv6 198.18.0.3/24", 64, "no IPv6 address");
	refused("-- --ip 198.18.0.2/24 --ipv6 2001:2:::2/64", 64, "no IPv6 address");
	refused("-- --ip 198.18.0.2/24 --gateway6 198.18.0.1", 64, "no IPv6 address");
	refused("-- --ip 198.18.0.2/24 --vlan 0", 64, "from 1 to 4094");
	refused("-- --ip 198.18.0.2/24 --vlan 4095", 64, "from 1 to 4094");
	refused("-- --ip 198.18.0.2/24 --route 10.0.0.0/8", 64, "no route");
	refused("-- --ip 198.18.0.2/24 --route 10.0.0.0,198.18.0.1", 64, "no route");
	refused("-- --ip 198.18.0.2/24 --route 10.0.0.1/8,198.18.0.1", 64, "a host, not a network");
	refused("-- --ip 198.18.0.2/24 --route 10.0.0.0/8,2001:2::1", 64, "no IPv4 address");
	refused("-- --ip 198.18.0.2/24 --route=", 64, "empty");
	refused("-- --ip 198.18.0.2/24 --ipv6 fe80::2/64", 78, "cannot have this address");
	refused("-- --ip 198.18.0.2/24 --ipv6 ::1/128", 78, "cannot have this address");
	refused("-- --ip 198.18.0.2/24 --ipv6 ff02::1/64", 78, "cannot have this address");
	refused("-- --ip 198.18.0.2/24 --ipv6 2001:2::2/64 --gateway6 2001:2:0:1::1", 78, "contradicts --ipv6");
	refused("-- --ip 198.18.0.2/24 --ipv6 2001:2::2/64 --gateway6 2001:2::2", 78, "contradicts --ipv6");
	refused("-- --ip 198.18.0.2/24 --ipv6 2001:2::2/64 --mtu 1279", 78, "at least 1280");
	refused("-- --ip 198.18.0.2/24 --gateway6 2001:2::1", 78, "add --ipv6");
	refused("-- --ip 198.18.0.2/24 --route 2001:db8::/32,2001:2::1", 78, "add --ipv6");
	refused("-- --ip 198.18.0.2/24 --route 10.0.0.0/8,198.18.1.1", 78, "another host of our own network");
	refused("-- --ip 198.18.0.2/24 --route 10.0.0.0/8,198.18.0.2", 78, "another host of our own network");
	refused("-- --ip 198.18.0.2/24 --vlan 5 --udp-echo", 78, "contradicts --vlan");
}

static void an_unknown_or_malformed_option_is_a_usage_error(void **state)
{
	(void)state;
	refused("-- --ip 198.18.0.2/24 --colour red", 64, "unknown option --colour");
	refused("--vdev=net_tap0 --ip 198.18.0.2/24", 64, "before a lone --");
	refused("-- ip 198.18.0.2/24", 64, "'ip' is no option");
	refused("-- -i 198.18.0.2/24", 64, "own options begin with --");
	refused("-- --ip", 64, "--ip needs a value");
	refused("-- --ip 198.18.0.2", 64, "write it as 198.18.0.2/24");
	refused("-- --ip 198.18.0.2/33", 64, "from 1 to 32");
	refused("-- --ip 198.18.0.2/", 64, "from 1 to 32");
	refused("-- --ip 198.18.0.256/24", 64, "from 1 to 32");
	refused("-- --ip 1111111111111111111111111111/24", 64, "no address");
	refused("-- --ip 198.18.0.2/24 --ip 198.18.0.3/24", 64, "given twice");
	refused("-- --ip 198.18.0.2/24 --gateway 198.18.0", 64, "no IPv4 address");
	refused("-- --ip 198.18.0.2/24 --mac 02-54-57-00-00-02", 64, "no Ethernet address");
	refused("-- --ip 198.18.0.2/24 --mac 02:54:57:00:00:0g", 64, "no Ethernet address");
	refused("-- --ip 198.18.0.2/24 --mtu 575", 64, "no number from 576 to 9000");
	refused("-- --ip 198.18.0.2/24 --mtu -1", 64, "no number");
	refused("-- --ip 198.18.0.2/24 --mtu 0x600", 64, "no number");
	refused("-- --ip 198.18.0.2/24 --amqp-port 65536", 64, "from 1 to 65535");
	refused("-- --ip 198.18.0.2/24 --amqp-port 99999999999999999999", 64, "from 1 to 65535");
	refused("-- --ip 198.18.0.2/24 --udp-echo=yes", 64, "takes no value");
	refused("-- --ip 198.18.0.2/24 --idle busy", 64, "none of its words");
	refused("-- --ip 198.18.0.2/24 --log-level loud", 64, "none of its words");
	refused("-- --ip 198.18.0.2/24 --connections 0", 64, "no number from 1");
	refused("-- --ip 198.18.0.2/24 --messages-memory 256Q", 64, "no size");
	refused("-- --ip 198.18.0.2/24 --messages-memory 300M", 64, "no power of two");
	refused("-- --ip 198.18.0.2/24 --messages-memory 1", 64, "not between");
	refused("-- --ip 198.18.0.2/24 --messages-memory 99999999999T", 64, "no size");
	refused("-- --ip 198.18.0.2/24 --socket=", 64, "empty");
}

static void contradictions_are_a_configuration_error(void **state)
{
	(void)state;
	refused("--", 78, "--ip A.B.C.D/LEN");
	refused("-- --ip 198.18.0.2/24 --workers 2 --udp-echo", 78, "contradicts --workers");
	refused("-- --ip 198.18.0.2/24 --idle-after-us 5", 78, "contradicts --idle poll");
	refused("-- --ip 198.18.0.2/24 --idle poll --idle-after-us 5", 78, "contradicts --idle poll");
	refused("-- --ip 198.18.0.0/24", 78, "first address");
	refused("-- --ip 198.18.0.255/24", 78, "broadcast address");
	refused("-- --ip 127.0.0.1/8", 78, "cannot have this address");
	refused("-- --ip 224.0.0.5/24", 78, "cannot have this address");
	refused("-- --ip 0.0.0.5/24", 78, "cannot have this address");
	refused("-- --ip 198.18.0.2/24 --gateway 198.18.1.1", 78, "contradicts --ip");
	refused("-- --ip 198.18.0.2/24 --gateway 198.18.0.2", 78, "contradicts --ip");
	refused("-- --ip 198.18.0.2/24 --mac 01:00:5e:00:00:01", 78, "group or all zero");
	refused("-- --ip 198.18.0.2/24 --mac 00:00:00:00:00:00", 78, "group or all zero");
	refused("-- --ip 198.18.0.2/24 --messages-memory 4M --message-max 2M", 78, "quarter");
	refused("-- --ip 198.18.0.2/24 --messages-memory 16M", 78, "--message-max (16 MiB unless given)");
}

static void a_host_route_and_a_point_to_point_net_have_no_broadcast_address(void **state)
{
	(void)state;
	assert_int_equal(parse("-- --ip 198.18.0.0/31"), 0);
	assert_int_equal(parse("-- --ip 198.18.0.255/32"), 0);
}

static void help_and_version_need_nothing_else(void **state)
{
	(void)state;
	assert_int_equal(parse("--help"), 0);
	assert_true(options.help);
	assert_int_equal(parse("--version"), 0);
	assert_true(options.version);
}

static void help_names_every_option(void **state)
{
	static const char *const names[] = {
#define DP_OPTION(name, kind, field, least, most, argument, help) "--" name " ",
#include "dataplane/options.def"
#undef DP_OPTION
	};
	char text[8192] = "";
	FILE *f = fmemopen(text, sizeof text, "w");

	(void)state;
	dp_options_help(f);
	fclose(f);
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		assert_non_null(strstr(text, names[i]));
}

static void a_file_alone_starts_the_dataplane(void **state)
{
	(void)state;
	assert_int_equal(parse_file("# the whole host\n[control]\ncolour = red\n[dataplane]\nip = 198.18.0.2/24\n"
				    "eal = -l 0,1 --vdev 'net_tap0,iface=a b' --no-pci\nudp-echo = yes\nidle = adaptive\n",
				    ""),
			 0);
	assert_int_equal(options.ipv4.len, 24);
	assert_true(options.udp_echo);
	assert_int_equal(options.idle, DP_IDLE_ADAPTIVE);
	assert_int_equal(options.eal_argc, 6);
	assert_string_equal(options.eal_argv[1], "-l");
	assert_string_equal(options.eal_argv[4], "net_tap0,iface=a b");
	assert_string_equal(options.eal_argv[5], "--no-pci");
}

static void the_command_line_comes_before_the_file(void **state)
{
	(void)state;
	assert_int_equal(parse_file("[dataplane]\nip = 198.18.0.2/24\namqp-port = 1000\neal = --no-pci -l 0\n",
				    "-l 0,1 -- --amqp-port 2000"),
			 0);
	assert_int_equal(options.amqp_port, 2000);
	assert_int_equal(options.eal_argc, 3);
	assert_string_equal(options.eal_argv[2], "0,1");
}

static void a_wrong_file_is_a_configuration_error(void **state)
{
	(void)state;
	refused("--config /nowhere/at.all", 78, "/nowhere/at.all");
	file_refused("[control]\nx = y\n", "no section [dataplane]");
	file_refused("[datplane]\nip = 198.18.0.2/24\n", "no section [dataplane]");
	file_refused("[dataplane]\ncolour = red\n", ":2: unknown key 'colour'");
	file_refused("[dataplane]\nconfig = other\n", "unknown key 'config'");
	file_refused("[dataplane]\nhelp = yes\n", "unknown key 'help'");
	file_refused("[dataplane east]\nip = 198.18.0.2/24\n", "takes no name");
	file_refused("[dataplane]\nip = 198.18.0.2\n", ":2: ip:");
	file_refused("[dataplane]\nip = 198.18.0.2/24\nudp-echo = perhaps\n", "neither yes nor no");
	file_refused("[dataplane]\nip = 198.18.0.2/24\nip = 198.18.0.3/24\n", "twice");
	file_refused("[dataplane]\nip = 198.18.0.2/24\nworkers = 2\nudp-echo = yes\n", "contradicts --workers");
	file_refused("[dataplane]\nip = 198.18.0.2/24\neal = -l '0,1\n", "not closed");
	file_refused("[dataplane]\nip 198.18.0.2/24\n", ":2:");
}

static void sizes_know_their_units_and_their_bounds(void **state)
{
	uint64_t n = 5;

	(void)state;
	assert_true(dp_value_size("1K", &n) && n == 1024);
	assert_true(dp_value_size("3T", &n) && n == 3ull << 40);
	assert_true(dp_value_size("18446744073709551615", &n) && n == UINT64_MAX);
	n = 5;
	assert_false(dp_value_size("18446744073709551616", &n));
	assert_false(dp_value_size("18014398509481984K", &n));
	assert_false(dp_value_size("1KB", &n));
	assert_false(dp_value_size("K", &n));
	assert_false(dp_value_size("", &n));
	assert_int_equal(n, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_alone_is_enough),
		cmocka_unit_test(what_stands_before_the_lone_dashes_goes_to_dpdk),
		cmocka_unit_test(every_option_sets_its_field),
		cmocka_unit_test(both_families_routes_and_a_vlan_are_read),
		cmocka_unit_test(addresses_routes_and_tags_that_cannot_be_are_refused),
		cmocka_unit_test(an_unknown_or_malformed_option_is_a_usage_error),
		cmocka_unit_test(contradictions_are_a_configuration_error),
		cmocka_unit_test(a_host_route_and_a_point_to_point_net_have_no_broadcast_address),
		cmocka_unit_test(help_and_version_need_nothing_else),
		cmocka_unit_test(help_names_every_option),
		cmocka_unit_test(a_file_alone_starts_the_dataplane),
		cmocka_unit_test(the_command_line_comes_before_the_file),
		cmocka_unit_test(a_wrong_file_is_a_configuration_error),
		cmocka_unit_test(sizes_know_their_units_and_their_bounds),
	};

	return cmocka_run_group_tests_name("dp_options", tests, NULL, NULL);
}
