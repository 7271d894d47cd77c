# The interop suite's C client. It needs a broker, so it is no TEST_PROGRAM: tests/interop/test_librabbitmq runs it in the lab.
INTEROP_CLIENT := $(BUILD)/interop/librabbitmq
$(INTEROP_CLIENT): $(BUILD)/tests/interop/librabbitmq.o
	@mkdir -p $(@D)
	@echo "  LD      $@"
	@$(CC) $(LDFLAGS) -o $@ $^ -lrabbitmq

test-built: $(INTEROP_CLIENT)

# `make interop MATCH=pika`: the suites that need the lab alone
.PHONY: interop
interop: all $(INTEROP_CLIENT)
	@tests/run --only interop $(addprefix --match ,$(MATCH))

# npm's client is fetched here, since the lab's namespaces have no way out; without a registry its suite alone fails, and says so.
NODE_CLIENT := $(BUILD)/node/node_modules/.package-lock.json
$(NODE_CLIENT): tests/interop/node/package.json tests/interop/node/package-lock.json
	@mkdir -p $(BUILD)/node
	@cp $^ $(BUILD)/node/
	@echo "  NPM     amqplib"
	@npm --prefix $(BUILD)/node ci --no-audit --no-fund --loglevel=error >$(BUILD)/node/npm.log 2>&1 && touch $@ || \
		{ echo "npm could not fetch amqplib (see $(BUILD)/node/npm.log): its interop suite will fail"; tail -n 3 $(BUILD)/node/npm.log; }

test-built interop: $(NODE_CLIENT)
