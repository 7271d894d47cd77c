# Tests of dataplane/: what needs no port runs without DPDK; test_dp_tx starts EAL on a ring port of its own, unprivileged.
$(eval $(call unit,test_dp_options,$(call objs,dataplane,options values log) $(CTL_CONF_OBJS) $(AMQP_OBJS) $(MATCHER_RT_OBJS),$(HS_RT_LIBS)))
$(eval $(call unit,test_dp_parts,$(call objs,dataplane,clock stages laps echo watchdog),))
$(eval $(call unit,test_dp_shm,$(call objs,dataplane,shm mailbox) $(CTL_SHM_OBJS),-lpthread))
$(eval $(call unit,test_dp_link,$(call objs,dataplane,link databases shm mailbox log) $(CTL_SHM_OBJS) $(MATCHER_RT_OBJS) $(MATCHER_COMPILE_OBJS),$(HS_LIBS) -lpthread))
$(eval $(call unit,test_dp_grace,$(call objs,dataplane,grace),-lpthread))
$(eval $(call unit,test_dp_rows,$(call objs,dataplane,rows counters shm) $(CTL_SHM_OBJS),))
$(BUILD)/tests/unit/test_dp_tx.o: CFLAGS += $(DPDK_CFLAGS)
$(eval $(call unit,test_dp_tx,$(call objs,dataplane,tx),$$(DPDK_LIBS)))

# The interposer that shows that a worker allocates nothing; its head says how a script uses it.
MALLOC_COUNT := $(BUILD)/interop/malloc_count.so
test-built interop: $(MALLOC_COUNT)
$(MALLOC_COUNT): tests/interop/malloc_count.c
	@mkdir -p $(@D)
	@echo "  CC      $@"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -fno-builtin -fPIC -shared -o $@ $<

# Frames copied or attached: what --multi-segs saves, and from which length on.
$(BUILD)/tests/bench/piece_bench.o: CFLAGS += $(DPDK_CFLAGS)
$(BUILD)/bench/piece_bench: $(BUILD)/tests/bench/piece_bench.o $(call objs,dataplane,tx) $(call objs,tcpstack,cksum)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(DPDK_LIBS)
BENCH_PROGRAMS += $(BUILD)/bench/piece_bench
.PHONY: piece-bench
piece-bench: $(BUILD)/bench/piece_bench
	@$<

# Bulk over net_tap beside a bare packet sink and source: `make tap-bench`. The dataplane's own port, pool and sizes, without its main.
TAP_BULK_OBJS := $(filter-out $(BUILD)/dataplane/main.o,$(DATAPLANE_OBJS)) $(TCPSTACK_OBJS) $(AMQP_OBJS) $(MATCHER_RT_OBJS) $(CTL_SHM_OBJS) $(CTL_CONF_OBJS)
$(BUILD)/tests/bench/tap_bulk.o: CFLAGS += $(DPDK_CFLAGS)
$(BUILD)/bench/tap_bulk: $(BUILD)/tests/bench/tap_bulk.o $(TAP_BULK_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(DPDK_LIBS) -lnuma $(HS_RT_LIBS) -lpthread
$(BUILD)/bench/tap_peer: $(BUILD)/tests/bench/tap_peer.o
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $^
BENCH_PROGRAMS += $(BUILD)/bench/tap_bulk $(BUILD)/bench/tap_peer
.PHONY: tap-bench
tap-bench: $(BUILD)/bench/tap_bulk $(BUILD)/bench/tap_peer
	@tests/bench/bulk

# The production worker between two functions that stand for its port: everything of the dataplane but its main().
FASTPATH_OBJS := $(call objs,tests/bench,fastpath fastpath_far fastpath_worker) $(call objs,tests/sim,broker_control tcp_host net) \
	$(sort $(filter-out $(call objs,dataplane,main),$(DATAPLANE_OBJS)) $(TCPSTACK_OBJS) $(AMQP_OBJS) $(MATCHER_RT_OBJS) \
	$(MATCHER_COMPILE_OBJS) $(CTL_RIB_OBJS) $(CTL_SHM_OBJS) $(CTL_CONF_OBJS))
$(BUILD)/tests/bench/fastpath_worker.o: CFLAGS += $(DPDK_CFLAGS)
$(BUILD)/bench/fastpath: $(FASTPATH_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -Wl,--wrap=tcps_flush -o $@ $(filter %.o,$^) $(DPDK_LIBS) -lnuma $(HS_LIBS) -lpthread
BENCH_PROGRAMS += $(BUILD)/bench/fastpath
TEST_PROGRAMS += $(BUILD)/bench/fastpath
