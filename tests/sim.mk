# The whole-broker simulator: TCP, AMQP, matcher and the RIB in one process.
BROKER_SIM_OBJS := $(call objs,tests/sim,broker_sim broker_client broker_control tcp_host net) \
	$(sort $(TCPSTACK_OBJS) $(AMQP_OBJS) $(MATCHER_RT_OBJS) $(MATCHER_COMPILE_OBJS) $(MATCHER_ORACLE_OBJS) $(CTL_RIB_OBJS) $(CTL_SHM_OBJS))
$(BUILD)/bin/broker_sim: $(BROKER_SIM_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(HS_LIBS)
SIMULATORS += $(BUILD)/bin/broker_sim
TEST_PROGRAMS += $(BUILD)/bin/broker_sim

$(eval $(call unit,test_tcps_keepalive,$(call objs,tests/sim,tcp_host net) $(TCPSTACK_OBJS),))
$(eval $(call unit,test_tcps_tso,$(call objs,tests/sim,tcp_host net) $(TCPSTACK_OBJS),))
$(eval $(call unit,test_tcps_reorder,$(call objs,tests/sim,tcp_host net) $(TCPSTACK_OBJS),))
$(eval $(call unit,test_tcps_pieces,$(call objs,tests/sim,tcp_host net) $(TCPSTACK_OBJS),))
BENCH_PROGRAMS += $(BUILD)/bench/idle_memory
$(BUILD)/bench/idle_memory: $(BUILD)/tests/bench/idle_memory.o $(TCPSTACK_OBJS) $(AMQP_OBJS) $(MATCHER_RT_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(HS_RT_LIBS)
TEST_PROGRAMS += $(BUILD)/bench/idle_memory

BENCH_PROGRAMS += $(BUILD)/bench/fanout $(BUILD)/bin/tcp_cost
