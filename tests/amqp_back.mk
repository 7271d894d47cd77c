# Tests of the AMQP machine's back half: the pool alone, then whole brokers on a transport whose room the test decides.
AMQP_BACK_KIT := $(call objs,tests/unit,amqp_back_kit) $(AMQP_OBJS) $(MATCHER_RT_OBJS)

$(eval $(call unit,test_amqp_back_pool,$(call objs,amqp,pool),))
$(foreach t,basic queue stall fair route fib soak,$(eval $(call unit,test_amqp_back_$(t),$(AMQP_BACK_KIT) $(MATCHER_COMPILE_OBJS) $(MATCHER_ORACLE_OBJS),$(HS_LIBS))))

# The machine's own cost of a tick, without a port: `make fanout-bench`; see the file for callgrind.
$(BUILD)/bench/fanout: $(BUILD)/tests/bench/fanout.o $(AMQP_OBJS) $(MATCHER_RT_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(HS_RT_LIBS)

.PHONY: fanout-bench
fanout-bench: $(BUILD)/bench/fanout
	@$< --consumers 1 --ticks 1000000
	@$< --consumers 50 --ticks 100000
	@$< --consumers 50 --ticks 100000 --ack
	@$< --consumers 50 --ticks 20000 --body 4096

# The longest step of what a worker does beside ticks: `make steps-bench`.
$(BUILD)/bench/steps: $(BUILD)/tests/bench/steps.o $(AMQP_BACK_KIT) $(MATCHER_COMPILE_OBJS) $(call objs,tcpstack,wheel)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(sort $^) $(HS_LIBS) -lcmocka
BENCH_PROGRAMS += $(BUILD)/bench/steps
.PHONY: steps-bench
steps-bench: $(BUILD)/bench/steps
	@$<
