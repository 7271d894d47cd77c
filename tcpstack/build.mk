# tcpstack/ needs nothing but libc. The register of the frame pointer is worth some 25 instructions a segment; not to move two
# neighbouring fields into a vector register and out again, and not to compute early what is seldom needed, some 25 more.
CFLAGS_tcpstack := -fomit-frame-pointer
ifeq ($(findstring clang,$(CC)),)
CFLAGS_tcpstack += -fno-tree-vectorize -fno-tree-pre
endif
TCPSTACK_OBJS := $(call objs,tcpstack,arp chain check cksum congestion conn cookie frame half_open icmp input ipv4 ipv6 mini nd neigh options \
	own pmtu pool rack recv reply route sack send sent siphash stack tcp_ack tcp_output tcp_segment tcp_timer time_wait undo wheel)
