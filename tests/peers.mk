# Independent peers of tcpstack/: lwIP in process, and packetdrill's shared-library interface.
LWIP_CFLAGS = $(shell pkg-config --cflags lwip 2>/dev/null | sed 's/-I/-isystem /g')
$(BUILD)/tests/sim/lwip_host.o: CFLAGS += $(LWIP_CFLAGS)
$(BUILD)/bin/lwip_sim: $(call objs,tests/sim,lwip_sim lwip_host tcp_app tcp_host net) $(TCPSTACK_OBJS)
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -llwip
SIMULATORS += $(BUILD)/bin/lwip_sim
TEST_PROGRAMS += $(BUILD)/bin/lwip_sim
