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

include tcpstack/build.mk matcher/build.mk amqp/build.mk control/build.mk dataplane/build.mk tools/build.mk
include $(sort $(wildcard tests/*.mk))

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(CFLAGS_$(firstword $(subst /, ,$<))) -MMD -MP -c -o $@ $<

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

all: $(PROGRAMS)

.PHONY: deps test unit sim fuzz fuzz-replay interop demo bench lint asan install uninstall clean help
unit: $(UNIT_TESTS)

deps:
	@tools/deps

test: deps
	@$(MAKE) --no-print-directory -j2 test-built

.PHONY: test-built
test-built: all $(UNIT_TESTS) $(TEST_PROGRAMS)
	@tests/run

demo: deps
	@$(MAKE) --no-print-directory -j2 all
	@tools/demo

clean:
	@rm -rf build
