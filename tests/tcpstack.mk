# Tests of tcpstack/.
TCP_SIM_OBJS := $(call objs,tests/sim,tcp_sim tcp_app tcp_host net) $(TCPSTACK_OBJS)
$(BUILD)/bin/tcp_sim: $(TCP_SIM_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^)
SIMULATORS += $(BUILD)/bin/tcp_sim
TEST_PROGRAMS += $(BUILD)/bin/tcp_sim

# Instructions of the pair of a tick, counted by tests/bench/run --count-only.
$(BUILD)/bin/tcp_cost: $(call objs,tests/sim,tcp_cost tcp_host net) $(TCPSTACK_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^)

TCPS_RIG_OBJS := $(call objs,tests/unit,test_tcps_rig) $(TCPSTACK_OBJS)
$(foreach t,test_tcps_cksum test_tcps_timer test_tcps_link test_tcps_send test_tcps_short test_tcps_cookie test_tcps_ecn test_tcps_open test_tcps_loss test_tcps_undo test_tcps_stream test_tcps_close test_tcps_v6 test_tcps_nd test_tcps_icmp test_tcps_vlan,$(eval $(call unit,$t,$(TCPS_RIG_OBJS),)))
$(eval $(call fuzzer,fuzz_tcps,$(TCPSTACK_OBJS),))

# Cycles of the stack without I/O: the pair of a tick, timers, opening and closing, bulk.
$(BUILD)/bench/tcp_bench: $(BUILD)/tests/bench/tcp_bench.o $(call objs,tests/sim,tcp_host net) $(TCPSTACK_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^)
BENCH_PROGRAMS += $(BUILD)/bench/tcp_bench
.PHONY: tcp-bench
tcp-bench: $(BUILD)/bench/tcp_bench
	@$<

# The simulator over a stack without its short paths: every frame of a world must be the same (tests/sim/short_paths).
GENERAL_OBJS := $(patsubst $(BUILD)/%,$(BUILD)/general/%,$(TCPSTACK_OBJS))
$(BUILD)/general/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $< (general paths only)"
	@$(CC) $(CPPFLAGS) -DTCPS_GENERAL_ONLY=1 $(CFLAGS) $(CFLAGS_tcpstack) -MMD -MP -c -o $@ $<
$(BUILD)/bin/tcp_sim_general: $(call objs,tests/sim,tcp_sim tcp_app tcp_host net) $(GENERAL_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^)
TEST_PROGRAMS += $(BUILD)/sim/short_paths
$(BUILD)/sim/short_paths: tests/sim/short_paths $(BUILD)/bin/tcp_sim $(BUILD)/bin/tcp_sim_general
	@mkdir -p $(@D)
	@cp $< $@
