# dataplane/: the poll-mode process. What has no rte_ in it is apart, so that unit tests link it without DPDK.
CFLAGS_dataplane = $(DPDK_CFLAGS)
DATAPLANE_PLAIN_OBJS := $(call objs,dataplane,clock counters echo laps log mailbox options rows shm stages values watchdog)
DATAPLANE_OBJS := $(DATAPLANE_PLAIN_OBJS) $(call objs,dataplane,conn databases drain fib_link grace handover link main mem port tap_poll tx worker worker_setup)

$(eval $(call program,tickwire-dataplane,$(DATAPLANE_OBJS) $(TCPSTACK_OBJS) $(AMQP_OBJS) $(MATCHER_RT_OBJS) $(CTL_SHM_OBJS) $(CTL_CONF_OBJS),$$(DPDK_LIBS) -lnuma $(HS_RT_LIBS) -lpthread))
