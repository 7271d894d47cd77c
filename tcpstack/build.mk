# tcpstack/ needs nothing but libc.
TCPSTACK_OBJS := $(call objs,tcpstack,arp check cksum congestion conn half_open input ipv4 mini options pool rack recv reply sack send sent \
	siphash stack tcp_ack tcp_output tcp_segment tcp_timer time_wait wheel)
