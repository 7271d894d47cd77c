# Tests of matcher/: five cmocka programs, three fuzzers, one bench.
MATCH_TEST_OBJS := $(MATCHER_RT_OBJS) $(MATCHER_COMPILE_OBJS) $(MATCHER_ORACLE_OBJS)
$(eval $(call unit,test_match_topic,$(MATCH_TEST_OBJS),$(HS_LIBS)))
