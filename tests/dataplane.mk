# Tests of dataplane/: what needs no port runs without DPDK; test_dp_tx starts EAL on a ring port of its own, unprivileged.
$(eval $(call unit,test_dp_options,$(call objs,dataplane,options values log) $(CTL_CONF_OBJS),))
$(eval $(call unit,test_dp_parts,$(call objs,dataplane,clock stages echo watchdog),))
$(eval $(call unit,test_dp_shm,$(call objs,dataplane,shm mailbox) $(CTL_SHM_OBJS),-lpthread))
$(eval $(call unit,test_dp_link,$(call objs,dataplane,link databases shm mailbox log) $(CTL_SHM_OBJS) $(MATCHER_RT_OBJS) $(MATCHER_COMPILE_OBJS),$(HS_LIBS) -lpthread))
$(BUILD)/tests/unit/test_dp_tx.o: CFLAGS += $(DPDK_CFLAGS)
$(eval $(call unit,test_dp_tx,$(call objs,dataplane,tx),$$(DPDK_LIBS)))
