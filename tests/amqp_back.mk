# Tests of the AMQP machine's back half: the pool alone, then whole brokers on a transport whose room the test decides.
AMQP_BACK_KIT := $(call objs,tests/unit,amqp_back_kit) $(AMQP_OBJS) $(MATCHER_RT_OBJS)

$(eval $(call unit,test_amqp_back_pool,$(call objs,amqp,pool),))
$(foreach t,basic queue stall route fib soak,$(eval $(call unit,test_amqp_back_$(t),$(AMQP_BACK_KIT) $(MATCHER_COMPILE_OBJS) $(MATCHER_ORACLE_OBJS),$(HS_LIBS))))
