# Independent peers of tcpstack/: lwIP in process, and packetdrill's shared-library interface.
LWIP_CFLAGS = $(shell pkg-config --cflags lwip 2>/dev/null | sed 's/-I/-isystem /g')
$(BUILD)/tests/sim/lwip_host.o: CFLAGS += $(LWIP_CFLAGS)
$(BUILD)/bin/lwip_sim: $(call objs,tests/sim,lwip_sim lwip_host tcp_app tcp_host net) $(TCPSTACK_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -llwip
SIMULATORS += $(BUILD)/bin/lwip_sim
TEST_PROGRAMS += $(BUILD)/bin/lwip_sim

# packetdrill loads it with --so_filename; everything but the one function stays inside.
PACKETDRILL_SO := $(BUILD)/packetdrill/libtickwire-packetdrill.so
PACKETDRILL_PIC := $(patsubst $(BUILD)/%.o,$(BUILD)/pic/%.o,$(call objs,tests/packetdrill,driver socket transfer option event) $(TCPSTACK_OBJS))
$(BUILD)/pic/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC      $< (pic)"
	@$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(PACKETDRILL_SO): $(PACKETDRILL_PIC)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -shared -Wl,-z,defs -o $@ $^ -lpthread

.PHONY: packetdrill-driver
packetdrill-driver: $(PACKETDRILL_SO)

$(eval $(call unit,test_packetdrill,,-ldl -lpthread))
$(BUILD)/tests/unit/test_packetdrill.o: CPPFLAGS += -DPACKETDRILL_SO='"$(PACKETDRILL_SO)"'
$(BUILD)/unit/test_packetdrill: | $(PACKETDRILL_SO)
TEST_PROGRAMS += tests/packetdrill/run
tests/packetdrill/run: $(PACKETDRILL_SO)
