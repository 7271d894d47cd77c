# tcpstack/ needs nothing but libc.
TCPSTACK_OBJS := $(call objs,tcpstack,arp check cksum conn half_open input ipv4 mini options pool recv reply send siphash stack \
	tcp_ack tcp_output tcp_segment tcp_timer time_wait wheel)
