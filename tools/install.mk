# make install: programs, units, a commented configuration and completion, where Debian would put them. Nothing is started.
DESTDIR ?=
PREFIX ?= /usr
BINDIR = $(DESTDIR)$(PREFIX)/bin
SBINDIR = $(DESTDIR)$(PREFIX)/sbin
DOCDIR = $(DESTDIR)$(PREFIX)/share/doc/tickwire
BASHCOMPDIR = $(DESTDIR)$(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR = $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions
UNITDIR = $(DESTDIR)/lib/systemd/system
CONFDIR = $(DESTDIR)/etc/tickwire

INSTALLED_UNITS := tickwire-dataplane.service tickwire-control.service
INSTALLED_BASHCOMP := tickctl tickbench tickwire-lab
INSTALLED_ZSHCOMP := _tickctl _tickbench _tickwire-lab

install: all
	@install -d $(BINDIR) $(SBINDIR) $(DOCDIR) $(BASHCOMPDIR) $(ZSHCOMPDIR) $(UNITDIR) $(CONFDIR)
	@install -m 755 $(BUILD)/bin/tickctl $(BUILD)/bin/tickbench $(BUILD)/bin/tickbench-dpdk $(BINDIR)/
	@install -m 755 $(BUILD)/bin/tickwire-dataplane $(BUILD)/bin/tickwire-control $(SBINDIR)/
	@install -m 755 tools/lab $(SBINDIR)/tickwire-lab
	@install -m 755 tools/doctor $(SBINDIR)/tickwire-doctor
	@for unit in $(INSTALLED_UNITS); do \
		sed 's|@sbindir@|$(PREFIX)/sbin|' tools/packaging/$$unit >$(UNITDIR)/$$unit && chmod 644 $(UNITDIR)/$$unit || exit 1; done
	@for name in $(INSTALLED_BASHCOMP); do install -m 644 tools/packaging/completion/$$name.bash $(BASHCOMPDIR)/$$name || exit 1; done
	@for name in $(INSTALLED_ZSHCOMP); do install -m 644 tools/packaging/completion/$$name $(ZSHCOMPDIR)/$$name || exit 1; done
	@install -m 644 README.md $(DOCDIR)/
	@install -m 644 tools/packaging/tickwire.conf $(DOCDIR)/tickwire.conf.example
	@if [ -e $(CONFDIR)/tickwire.conf ]; then echo "kept $(CONFDIR)/tickwire.conf as it is"; \
		else install -m 640 tools/packaging/tickwire.conf $(CONFDIR)/tickwire.conf; fi
	@echo "installed below $(DESTDIR)$(PREFIX); next: tickwire-doctor, /etc/tickwire/tickwire.conf, systemctl enable --now tickwire-dataplane tickwire-control"

# The configuration stays, as a package's removal leaves it; `rm -r /etc/tickwire` ends it. Definitions in /var/lib/tickwire stay, too.
uninstall:
	@rm -f $(addprefix $(BINDIR)/,tickctl tickbench tickbench-dpdk)
	@rm -f $(addprefix $(SBINDIR)/,tickwire-dataplane tickwire-control tickwire-lab tickwire-doctor)
	@rm -f $(addprefix $(UNITDIR)/,$(INSTALLED_UNITS))
	@rm -f $(addprefix $(BASHCOMPDIR)/,$(INSTALLED_BASHCOMP)) $(addprefix $(ZSHCOMPDIR)/,$(INSTALLED_ZSHCOMP))
	@rm -rf $(DOCDIR)
	@if [ -d $(CONFDIR) ]; then echo "left $(CONFDIR): remove it by hand if its users and settings are not wanted any more"; fi
