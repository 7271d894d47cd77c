# matcher: the run-time half needs Hyperscan's runtime ($(HS_RT_LIBS)), compiling needs all of it ($(HS_LIBS)).
CFLAGS_matcher = $(HS_CFLAGS)
MATCHER_RT_OBJS := $(call objs,matcher,arena pool exact node trie predicates headers set db)
MATCHER_COMPILE_OBJS := $(call objs,matcher,compile)
MATCHER_ORACLE_OBJS := $(call objs,matcher,oracle)
