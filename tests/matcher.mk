# Tests of matcher/: five cmocka programs, three fuzzers, one bench.
MATCH_TEST_OBJS := $(MATCHER_RT_OBJS) $(MATCHER_COMPILE_OBJS) $(MATCHER_ORACLE_OBJS)
$(foreach t,test_match_topic test_match_headers test_match_set test_match_property test_match_image,$(eval $(call unit,$t,$(MATCH_TEST_OBJS),$(HS_LIBS))))

# The process that opens an image as the dataplane does: no compiler is linked.
$(BUILD)/helper/match_image_child: $(BUILD)/tests/unit/match_image_child.o $(MATCHER_RT_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(HS_RT_LIBS)
$(BUILD)/unit/test_match_image: | $(BUILD)/helper/match_image_child

$(foreach f,fuzz_match_topic fuzz_match_headers fuzz_match_image,$(eval $(call fuzzer,$f,$(MATCH_TEST_OBJS),$(HS_LIBS))))

BENCH_PROGRAMS += $(BUILD)/bench/match_bench
# Figures for people, nothing asserted.
$(BUILD)/bench/match_bench: $(BUILD)/tests/bench/match_bench.o $(MATCHER_RT_OBJS) $(MATCHER_COMPILE_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(HS_LIBS)
