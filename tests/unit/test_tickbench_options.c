/* The command line of tickbench: what is taken, and that everything else is refused with a sentence and status 64.
 * Runs on the build host as part of make test.
 * Specification: GNU long options; EX_USAGE of sysexits.h. */
#include "tools/tickbench/options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define ARGS_MAX 24

static char complaint[1024];

static int parse(struct tb_options *o, const char *line)
{
	static char words[512];
	char *argv[ARGS_MAX + 2] = {(char[]){"tickbench"}};
	int argc = 1;
	FILE *err = fmemopen(complaint, sizeof(complaint), "w"), *out = fopen("/dev/null", "w");

	assert_non_null(err);
	assert_non_null(out);
	assert_true(strlen(line) < sizeof(words));
	strcpy(words, line);
	for (char *w = strtok(words, " "); w && argc <= ARGS_MAX; w = strtok(NULL, " "))
		argv[argc++] = w;
	int rc = tb_options_parse(o, argc, argv, out, err);
	fclose(err);
	fclose(out);
	return rc;
}

static void defaults_are_a_small_load_on_the_local_broker(void **state)
{
	struct tb_options o;

	(void)state;
	assert_int_equal(parse(&o, ""), -1);
	assert_string_equal(o.load.broker.text, "127.0.0.1:5672");
	assert_string_equal(o.load.login.user, "guest");
	assert_string_equal(o.load.login.vhost, "/");
	assert_int_equal(o.load.subscribers, 1);
	assert_int_equal(o.load.rate_per_s, 1000);
	assert_int_equal(o.load.size_bytes, 64);
	assert_int_equal(o.load.cpus[0], -1);
	assert_true(o.load.busy_poll);
	assert_int_equal(o.find_max_p99_ns, 10000000);
}

static void every_value_reaches_its_field(void **state)
{
	struct tb_options o;

	(void)state;
	assert_int_equal(parse(&o, "--subscribers 50 --type topic --rate=5000 --size 128 --symbols 9 --bindings 3 "), -1);
	assert_int_equal(o.load.subscribers, 50);
	assert_int_equal(o.load.type, TB_TYPE_TOPIC);
	assert_int_equal(o.load.rate_per_s, 5000);
	assert_int_equal(o.load.size_bytes, 128);
	assert_int_equal(o.load.symbols, 9);
	assert_int_equal(o.load.bindings, 3);
	assert_int_equal(parse(&o, "--matching-bindings=6 --type=headers --duration 2.5 --warmup .5 --drain 1 --burst 4"), -1);
	assert_int_equal(o.load.matching_bindings, 6);
	assert_int_equal(o.load.duration_ns, 2500000000);
	assert_int_equal(o.load.warmup_ns, 500000000);
	assert_int_equal(o.load.drain_ns, 1000000000);
	assert_int_equal(o.load.burst, 4);
	assert_int_equal(parse(&o, "--ack --prefetch 7 --confirm --name x --poll epoll --threads 2 --cpu 0,0 --type all"), -1);
	assert_true(o.load.ack && o.load.confirm && o.all_types && !o.load.busy_poll);
	assert_int_equal(o.load.prefetch, 7);
	assert_string_equal(o.load.name, "x");
	assert_int_equal(o.load.threads, 2);
	assert_int_equal(o.load.cpus[1], 0);
	assert_int_equal(parse(&o, "10.0.0.1 --vs h:1 --echo [::1]:9 --json - --svg a --hgrm b --histogram --progress --rounds 3"),
			 -1);
	assert_string_equal(o.load.broker.text, "10.0.0.1:5672");
	assert_string_equal(o.vs.text, "h:1");
	assert_string_equal(o.echo.text, "[::1]:9");
	assert_string_equal(o.json, "-");
	assert_int_equal(o.rounds, 3);
	assert_true(o.has_vs && o.has_echo && o.histogram && o.load.progress);
	assert_int_equal(parse(&o, "--find-max --find-max-p99-ms 2.5 --find-max-tries 3 --host h --port 99 --quiet"), -1);
	assert_int_equal(o.find_max_p99_ns, 2500000);
	assert_int_equal(o.find_max_tries, 3);
	assert_string_equal(o.load.broker.text, "h:99");
	assert_int_equal(parse(&o, "--user u --password p --vhost v --pin 0 --echo h --echo-only --before true"), -1);
	assert_string_equal(o.before, "true");
	assert_string_equal(o.load.login.password, "p");
	assert_string_equal(o.echo.text, "h:7");
	assert_int_equal(o.load.cpus[0], 0);
}

static void help_and_version_leave_with_success(void **state)
{
	struct tb_options o;

	(void)state;
	assert_int_equal(parse(&o, "--help"), 0);
	assert_int_equal(parse(&o, "--version"), 0);
}

static void everything_else_is_refused_with_a_sentence_that_names_it(void **state)
{
	static const struct {
		const char *line;
		const char *part;
	} bad[] = {
		{"--nonsense", "--nonsense"},
		{"--s 1", "--s"},
		{"--rate", "--rate"},
		{"--rate 0", "--rate"},
		{"--rate -5", "--rate"},
		{"--rate 10000001", "--rate"},
		{"--rate 5x", "--rate"},
		{"--rate 99999999999999999999999", "--rate"},
		{"--rate=", "--rate"},
		{"--size 31", "--size"},
		{"--size 16777217", "--size"},
		{"--subscribers 0", "--subscribers"},
		{"--subscribers 4097", "--subscribers"},
		{"--type mesh", "--type"},
		{"--symbols 0", "--symbols"},
		{"--symbols 65537", "--symbols"},
		{"--duration 0", "--duration"},
		{"--duration nan", "--duration"},
		{"--duration inf", "--duration"},
		{"--duration 1s", "--duration"},
		{"--duration 0.1 --rate 1", "--duration"},
		{"--prefetch 5", "--ack"},
		{"--matching-bindings 5", "direct"},
		{"--type topic --matching-bindings 7", "--symbols"},
		{"--poll maybe", "--poll"},
		{"--threads 3", "--threads"},
		{"--cpu 0,0", "--threads"},
		{"--cpu x", "--cpu"},
		{"--cpu 0,", "--cpu"},
		{"--cpu 0,0,0", "--cpu"},
		{"--cpu 99999", "--cpu"},
		{"--port 0", "--port"},
		{"--port 70000", "--port"},
		{"--vs a:b", "--vs"},
		{"--vs :5672", "--vs"},
		{"--echo h:0", "--echo"},
		{"--echo-only", "--echo"},
		{"--echo h:7 --echo-only --vs b", "--vs"},
		{"--find-max-p99-ms 3", "--find-max"},
		{"--find-max --svg x", "--svg"},
		{"--quiet --histogram", "--histogram"},
		{"--ack=yes", "--ack"},
		{"a:1 b:2", "b:2"},
		{"a:1 --port 3", "--port"},
		{"[::1:5672", "[::1:5672"},
		{"h:99999", "h:99999"},
		{"--port memory", "--port"},
		{"--port 3b:00", "--port"},
		{"--port net_ring0 198.18.0.2", "net_ring"},
		{"--port-ip 10.0.0.1/8", "--port-ip"},
		{"--port-core 0 198.18.0.2", "--port-core"},
		{"--port memif broker:5672", "broker:5672"},
		{"--port memif [::1]:5672", "[::1]:5672"},
		{"--port memif 198.18.0.2 --vs other", "other"},
		{"--port memif 198.18.0.2 --threads 2", "--threads"},
		{"--port memif 198.18.0.2 --poll epoll", "--poll"},
		{"--port memif 198.18.0.2 --echo 198.18.0.2", "--echo"},
		{"--port memif 198.18.0.2 --cpu 0", "--port-core"},
		{"--port memif --port-ip 10.0.0.1", "--port-ip"},
		{"--port memif --port-ip 10.0.0.1/33", "--port-ip"},
		{"--port memif --port-ip 10.0.0.256/8", "--port-ip"},
		{"--port memif --port-gateway 10.0.0.0.1", "--port-gateway"},
		{"--port memif --port-core 99999", "--port-core"},
		{"--port memif --port-mtu 100", "--port-mtu"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct tb_options o;
		if (parse(&o, bad[i].line) != TB_EXIT_USAGE)
			fail_msg("'%s' was not refused", bad[i].line);
		if (!strstr(complaint, bad[i].part))
			fail_msg("'%s' is refused with '%s', which does not name '%s'", bad[i].line, complaint, bad[i].part);
		size_t length = strlen(complaint);
		assert_true(length > 20 && complaint[length - 1] == '\n' && strchr(complaint, '\n') == complaint + length - 1);
		assert_true(complaint[length - 2] == '.');
	}
}

static void a_device_takes_the_place_of_the_broker_s_port(void **state)
{
	struct tb_options o;

	(void)state;
	assert_int_equal(parse(&o, "--port memif,socket=/m 198.18.0.2:5673"), -1);
	assert_string_equal(o.port.device, "net_memif0,role=client,socket-abstract=no,socket=/m");
	assert_string_equal(o.load.broker.text, "198.18.0.2:5673");
	assert_memory_equal(o.port.ip, "\xC6\x12\x00\x01", 4);
	assert_int_equal(o.port.prefix_len, 24);
	assert_int_equal(o.port.core, 0);
	assert_int_equal(
		parse(&o, "--port net_af_packet0,iface=x --port 99 --host 10.0.0.9 --port-ip 10.0.0.1/8 --port-gateway 10.0.0.2"),
		-1);
	assert_string_equal(o.port.device, "net_af_packet0,iface=x");
	assert_string_equal(o.load.broker.text, "10.0.0.9:99");
	assert_memory_equal(o.port.ip, "\x0A\x00\x00\x01", 4);
	assert_memory_equal(o.port.gateway, "\x0A\x00\x00\x02", 4);
	assert_int_equal(o.port.prefix_len, 8);
	assert_int_equal(parse(&o, "--port 0000:01:00.0 10.0.0.9 --port-core 0 --port-mtu 9000 --port-eal --huge-dir=/mnt"), -1);
	assert_true(o.port.pci);
	assert_int_equal(o.port.mtu, 9000);
	assert_string_equal(o.port.eal, "--huge-dir=/mnt");
	assert_int_equal(parse(&o, "--port 5673"), -1);
	assert_string_equal(o.port.device, "");
}

static void endpoints_are_taken_apart(void **state)
{
	struct tb_endpoint e;

	(void)state;
	assert_true(tb_endpoint_parse(&e, "[2001:db8::1]:99", "5672"));
	assert_string_equal(e.host, "2001:db8::1");
	assert_string_equal(e.port, "99");
	assert_string_equal(e.text, "[2001:db8::1]:99");
	assert_true(tb_endpoint_parse(&e, "[::1]", "5672"));
	assert_string_equal(e.text, "[::1]:5672");
	assert_true(tb_endpoint_parse(&e, "2001:db8::1", "5672"));
	assert_string_equal(e.text, "[2001:db8::1]:5672");
	assert_true(tb_endpoint_parse(&e, "name:05672", "1"));
	assert_string_equal(e.text, "name:5672");
	assert_false(tb_endpoint_parse(&e, "", "5672"));
	assert_false(tb_endpoint_parse(&e, "h:", "5672"));
	assert_false(tb_endpoint_parse(&e, "[::1]x", "5672"));
}

static void the_environment_names_the_broker_where_the_command_line_does_not(void **state)
{
	struct tb_options o;

	(void)state;
	setenv("AMQP_HOST", "198.18.0.2", 1);
	setenv("AMQP_PORT", "5673", 1);
	assert_int_equal(parse(&o, ""), -1);
	assert_string_equal(o.load.broker.text, "198.18.0.2:5673");
	assert_int_equal(parse(&o, "--port 1234"), -1);
	assert_string_equal(o.load.broker.text, "198.18.0.2:1234");
	/* The port of that broker is not the port of another. */
	assert_int_equal(parse(&o, "--host 10.0.0.1"), -1);
	assert_string_equal(o.load.broker.text, "10.0.0.1:5672");
	assert_int_equal(parse(&o, "10.0.0.1"), -1);
	assert_string_equal(o.load.broker.text, "10.0.0.1:5672");
	setenv("AMQP_PORT", "many", 1);
	assert_int_equal(parse(&o, ""), TB_EXIT_USAGE);
	assert_non_null(strstr(complaint, "AMQP_PORT"));
	unsetenv("AMQP_HOST");
	unsetenv("AMQP_PORT");
}

int main(void)
{
	/* Inside a lab both are set. */
	unsetenv("AMQP_HOST");
	unsetenv("AMQP_PORT");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_a_small_load_on_the_local_broker),
		cmocka_unit_test(every_value_reaches_its_field),
		cmocka_unit_test(the_environment_names_the_broker_where_the_command_line_does_not),
		cmocka_unit_test(help_and_version_leave_with_success),
		cmocka_unit_test(everything_else_is_refused_with_a_sentence_that_names_it),
		cmocka_unit_test(endpoints_are_taken_apart),
		cmocka_unit_test(a_device_takes_the_place_of_the_broker_s_port),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
