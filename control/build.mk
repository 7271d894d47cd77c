# control/: the process that owns all definitions, its command line client, and what it shares with the dataplane.
# Both daemons link CTL_SHM_OBJS (shared memory) and CTL_CONF_OBJS (configuration file): libc only.
CTL_SHM_OBJS := $(call objs,control,ctl_shm)
CTL_CONF_OBJS := $(call objs,control,conf)
