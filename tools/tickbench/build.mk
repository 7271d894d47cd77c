# tickbench: the load generator and latency meter. It needs libc alone (and libm for the reports); tickbench-dpdk is the same program
# with a DPDK device in place of kernel sockets, on the dataplane's own port code and TCP stack.
TICKBENCH_OBJS := $(call objs,tools/tickbench,hist wire conn sock track topology pub load echo findmax options port_device report_text report_json \
	report_svg tickbench)
$(eval $(call program,tickbench,$(TICKBENCH_OBJS) $(call objs,tools/tickbench,port_exec),-lm -pthread))
$(BUILD)/tools/tickbench/port.o: CFLAGS += $(DPDK_CFLAGS)
$(eval $(call program,tickbench-dpdk,$(TICKBENCH_OBJS) $(call objs,tools/tickbench,port) \
	$(filter-out $(call objs,dataplane,main),$(DATAPLANE_OBJS)) $(TCPSTACK_OBJS) $(AMQP_OBJS) $(MATCHER_RT_OBJS) $(CTL_SHM_OBJS) $(CTL_CONF_OBJS),\
	$$(DPDK_LIBS) -lnuma $(HS_RT_LIBS) -lm -lpthread))
