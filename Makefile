# Tickwire: build, test, measure, install. Each folder lists its own objects in build.mk; see README.md.
SHELL := /bin/bash
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:

BUILD ?= build
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
VERSION := 0.1.0

# Every package that building, testing and measuring need; see tools/deps for what each is for.
WARN := -Wall -Wextra -Wshadow -Wconversion -Werror
OPT ?= -O2
SAN ?=
CPPFLAGS := -D_GNU_SOURCE -I. -DTICKWIRE_VERSION='"$(VERSION)"'
CFLAGS := -std=c11 $(OPT) -g -fno-strict-aliasing -fno-omit-frame-pointer $(WARN) $(SAN)
LDFLAGS := $(SAN)

# pkg-config is asked lazily, so that `make deps` works where nothing is installed.
DPDK_CFLAGS = $(shell pkg-config --cflags libdpdk 2>/dev/null | sed 's/-I/-isystem /g')
DPDK_LIBS = $(shell pkg-config --libs libdpdk 2>/dev/null)
HS_CFLAGS = $(shell pkg-config --cflags libhs 2>/dev/null | sed 's/-I/-isystem /g')
HS_LIBS = -lhs
HS_RT_LIBS = -lhs_runtime

.PHONY: all
all:

# $(call objs,folder,names) -> object paths
objs = $(patsubst %,$(BUILD)/$(1)/%.o,$(2))

PROGRAMS :=
UNIT_TESTS :=
TEST_PROGRAMS :=
BENCH_PROGRAMS :=
SIMULATORS :=
FUZZERS :=
# $(call program,path,objects,libs): a program under $(BUILD)/bin
define program
PROGRAMS += $(BUILD)/bin/$(1)
$(BUILD)/bin/$(1): $(2)
	@mkdir -p $$(@D)
	@echo "  LD      $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) $(3)
endef

# $(call unit,name,objects,libs): tests/unit/name.c is one cmocka program that links exactly these objects
define unit
UNIT_TESTS += $(BUILD)/unit/$(1)
$(BUILD)/unit/$(1): $(BUILD)/tests/unit/$(1).o $(2)
	@mkdir -p $$(@D)
	@echo "  LD      $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) -lcmocka $(3)
endef

# $(call fuzzer,name,objects,libs): tests/fuzz/name.c; replayed over tests/fuzz/corpus/<name less fuzz_> by `make test`,
# explored by `make fuzz`, which builds everything again with clang's libFuzzer, ASan and UBSan
define fuzzer
FUZZERS += $(BUILD)/fuzz/$(1)
TEST_PROGRAMS += $(BUILD)/replay/$(1)
$(BUILD)/replay/$(1): $(BUILD)/tests/fuzz/$(1).o $(BUILD)/tests/fuzz/replay_main.o $(2)
	@mkdir -p $$(@D)
	@echo "  LD      $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$(filter %.o,$$^) $(3)
$(BUILD)/fuzz/$(1): $(BUILD)/tests/fuzz/$(1).o $(2)
	@mkdir -p $$(@D)
	@echo "  LD      $$@"
	@$$(CC) $$(LDFLAGS) -fsanitize=fuzzer -o $$@ $$(filter %.o,$$^) $(3)
endef

include tcpstack/build.mk matcher/build.mk amqp/build.mk control/build.mk dataplane/build.mk tools/build.mk
include $(sort $(wildcard tests/*.mk))

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(firstword $(subst /, ,$<))) -MMD -MP -c -o $@ $<

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

all: $(PROGRAMS)

.PHONY: deps test unit sim fuzz demo bench lint asan install uninstall clean help test-built fuzz-run asan-run
help:
	@echo "make demo     install what is missing, build, and show ticks crossing the broker in the software lab (root)"
	@echo "make test     every test: unit, simulator, fuzz corpus, interop; ends with 'N passed, N failed' (root)"
	@echo "make bench    measure against the port's echo floor and RabbitMQ (root; installs rabbitmq-server)"
	@echo "make tap-bench  bulk over net_tap beside a bare packet sink and source (root)"
	@echo "make          build the programs into $(BUILD)/bin"
	@echo "make sim      the simulators over 20,000 random worlds each; SEED=n (the first) COUNT=n"
	@echo "make fuzz     explore with libFuzzer; FUZZ_SECONDS=60 for each target"
	@echo "make asan     the unit tests, simulators and corpus under AddressSanitizer and UBSan"
	@echo "make lint     borders, format, unfinished words"
	@echo "make install  DESTDIR=… PREFIX=/usr"

unit: $(UNIT_TESTS)

deps:
	@tools/deps

test: deps
	@$(MAKE) --no-print-directory -j2 test-built

test-built: all $(UNIT_TESTS) $(TEST_PROGRAMS)
	@TEST_PROGRAMS="$(TEST_PROGRAMS)" tests/run

demo: deps
	@$(MAKE) --no-print-directory -j2 all
	@tools/demo

bench: deps
	@tools/deps --bench
	@$(MAKE) --no-print-directory -j2 all $(BENCH_PROGRAMS)
	@tests/bench/run

SEED ?=
COUNT ?=
sim: $(SIMULATORS)
	@seed="$(SEED)"; seed=$${seed:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; \
	echo "seeds from $$seed (SEED), $(or $(COUNT),20000) of them (COUNT); a failing one is printed with the command that replays it"; \
	for s in $(SIMULATORS); do echo "== $$s"; $$s --seed $$seed --count $(or $(COUNT),20000) || exit 1; done

asan: deps
	@$(MAKE) --no-print-directory -j2 BUILD=build/asan OPT=-O1 SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined" asan-run
asan-run: $(UNIT_TESTS) $(TEST_PROGRAMS)
	@TEST_PROGRAMS="$(TEST_PROGRAMS)" tests/run --build $(BUILD) --only built

FUZZ_SECONDS ?= 60
fuzz: deps
	@$(MAKE) --no-print-directory -j2 BUILD=build/fuzzing CC=clang OPT=-O1 \
		SAN="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fsanitize=fuzzer-no-link" fuzz-run
fuzz-run: $(FUZZERS)
	@for f in $(FUZZERS); do n=$$(basename $$f); mkdir -p build/fuzz-found/$$n; \
		echo "== $$n for $(FUZZ_SECONDS) s"; \
		$$f -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1 \
			-artifact_prefix=build/fuzz-found/$$n/ build/fuzz-found/$$n tests/fuzz/corpus/$${n#fuzz_} || exit 1; done

lint: deps
	@tools/lint

-include tools/install.mk

clean:
	@rm -rf build bench-out
