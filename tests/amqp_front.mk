# Tests of amqp/'s front half: wire, connections, channels, declarations. The whole machine is linked, with a transport and a
# control of the kit's own.
AMQP_KIT_OBJS := $(call objs,tests/unit,amqp_kit amqp_kit_control)
AMQP_FRONT_TEST_OBJS := $(AMQP_KIT_OBJS) $(AMQP_OBJS) $(MATCHER_RT_OBJS)
$(foreach t,handshake frames whole channels declare timers,$(eval $(call unit,test_amqp_front_$t,$(AMQP_FRONT_TEST_OBJS),$(HS_RT_LIBS))))
$(eval $(call fuzzer,fuzz_amqp_frame,$(AMQP_FRONT_TEST_OBJS),$(HS_RT_LIBS)))
$(eval $(call fuzzer,fuzz_amqp_ops,$(AMQP_FRONT_TEST_OBJS),$(HS_RT_LIBS)))
