# Tests of matcher/: five cmocka programs, three fuzzers, one bench.
MATCH_TEST_OBJS := $(MATCHER_RT_OBJS) $(MATCHER_COMPILE_OBJS) $(MATCHER_ORACLE_OBJS)
$(foreach t,test_match_topic test_match_headers test_match_set test_match_property,$(eval $(call unit,$t,$(MATCH_TEST_OBJS),$(HS_LIBS))))
