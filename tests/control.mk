# Tests of control/ and of the field-table codec that it shares with amqp/.
$(eval $(call unit,test_ctl_table,$(call objs,amqp,table header_rule) $(MATCHER_RT_OBJS) $(MATCHER_ORACLE_OBJS),$(HS_RT_LIBS)))
$(eval $(call unit,test_ctl_shm,$(CTL_SHM_OBJS),-lpthread))
$(eval $(call unit,test_ctl_conf,$(CTL_CONF_OBJS) $(CTL_ACCESS_OBJS) $(call objs,control,map log) $(call objs,amqp,table),-lcrypto))
CTL_RIB_TEST_OBJS := $(CTL_RIB_OBJS) $(CTL_SHM_OBJS) $(MATCHER_RT_OBJS)
$(eval $(call unit,test_ctl_rib,$(CTL_RIB_TEST_OBJS),$(HS_RT_LIBS)))
$(eval $(call unit,test_ctl_sync,$(CTL_RIB_TEST_OBJS),$(HS_RT_LIBS)))
$(eval $(call unit,test_ctl_store,$(CTL_STORE_OBJS) $(CTL_SHM_OBJS) $(call objs,control,arena map log),-llmdb))
$(eval $(call unit,test_ctl_tickctl,$(call objs,control,tickctl_table tickctl_show tickctl_client),-ljansson -lm))

# The processes themselves, with a dataplane that the test plays.
$(eval $(call unit,test_ctl_process,$(call objs,tests/unit,ctl_fake_dataplane) $(call objs,dataplane,shm) $(CTL_SHM_OBJS) $(MATCHER_RT_OBJS),-ljansson $(HS_RT_LIBS)))
$(BUILD)/unit/test_ctl_process: | $(BUILD)/bin/tickwire-control $(BUILD)/bin/tickctl

$(eval $(call fuzzer,fuzz_ctl_ring,$(CTL_SHM_OBJS),))
$(eval $(call fuzzer,fuzz_ctl_table,$(call objs,amqp,table header_rule) $(MATCHER_RT_OBJS) $(MATCHER_ORACLE_OBJS),$(HS_RT_LIBS)))
$(eval $(call fuzzer,fuzz_ctl_rib,$(CTL_RIB_TEST_OBJS),$(HS_RT_LIBS)))
$(eval $(call fuzzer,fuzz_ctl_conf,$(CTL_CONF_OBJS),))
