# control/: the process that owns all definitions, its command line client, and what it shares with the dataplane.
# Both daemons link CTL_SHM_OBJS (shared memory) and CTL_CONF_OBJS (configuration file): libc only.
CTL_SHM_OBJS := $(call objs,control,ctl_shm)
CTL_CONF_OBJS := $(call objs,control,conf)

CTL_RIB_OBJS := $(call objs,control,rib rib_request rib_bind rib_store rib_sync args map log) $(call objs,amqp,table header_rule)
CTL_STORE_OBJS := $(call objs,control,store)
CTL_COMPILE_OBJS := $(call objs,control,compile arena)
CTL_ACCESS_OBJS := $(call objs,control,access options)
CTL_SERVER_OBJS := $(call objs,control,control link cli lists stats)
CTL_LIBS := -levent -ljansson -llmdb -lcrypto $(HS_LIBS) -lpthread

$(eval $(call program,tickwire-control,$(call objs,control,main) $(CTL_SERVER_OBJS) $(CTL_RIB_OBJS) $(CTL_STORE_OBJS) \
	$(CTL_COMPILE_OBJS) $(CTL_ACCESS_OBJS) $(CTL_SHM_OBJS) $(CTL_CONF_OBJS) $(MATCHER_RT_OBJS) $(MATCHER_COMPILE_OBJS),$(CTL_LIBS)))

$(eval $(call program,tickctl,$(call objs,control,tickctl tickctl_client tickctl_table tickctl_show access map log conf) \
	$(call objs,amqp,table),-ljansson -lcrypto -lm))
