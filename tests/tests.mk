# Integration tests, the soak and the demonstration. The programs talk to servers with
# hiredis and link nothing of src/.
INTEGRATION_CFLAGS := -Itests/integration
INTEGRATION_TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/integration/test_*.c))
INTEGRATION_PARTS := $(patsubst %.c,$(BUILD)/%.o,\
	$(filter-out tests/integration/test_%.c,$(wildcard tests/integration/*.c)))
# All tests run on the installed server with the module that has checks; those on other
# servers with the one that operators get. Without the module there is nothing to build
# but the tests.
TESTED_MODULE := $(CHECKED)/rdb_uffd.so
TESTED := $(if $(WITHOUT_MODULE),,$(PLACE)rdb_uffd.so $(TESTED_MODULE) $(UNIT_TESTS))
# With ONLY, if it is one of them that is wanted: they take a while to build.
FUZZED := $(if $(WITHOUT_MODULE),,$(if $(ONLY),$(findstring fuzz,$(ONLY)),yes))
.PHONY: test soak soak-suites model run dependencies tests-built
.PRECIOUS: $(BUILD)/%.o

dependencies: ## install the Debian packages that build and tests need
	@tests/install-dependencies

TEST_MODULES := $(patsubst %.c,$(BUILD)/%.so,$(wildcard tests/modules/*.c))
$(BUILD)/tests/modules/%.so: tests/modules/%.c
	@mkdir -p $(dir $@)
	$(call say,LINK)$(CC) $(CFLAGS) $(WARNINGS) $(STANDARD) -fPIC -shared -o $@ $<

TEST_SANDBOX := $(BUILD)/tests/sandbox/no-placing
$(TEST_SANDBOX): tests/sandbox/no-placing.c
	@mkdir -p $(dir $@)
	$(call say,LINK)$(CC) $(CFLAGS) $(WARNINGS) $(STANDARD) -o $@ $<

LITMUS := $(BUILD)/tests/model/litmus
$(LITMUS): tests/model/litmus.c
	@mkdir -p $(dir $@)
	$(call say,LINK)$(CC) $(CFLAGS) $(WARNINGS) $(STANDARD) -o $@ $<

tests-built: $(TESTED) $(if $(WITHOUT_MODULE),,$(LITMUS)) $(INTEGRATION_TESTS) $(TEST_MODULES) $(TEST_SANDBOX) \
	$(PLACE)uffd-watch $(if $(CROSS),,$(BUILD)/tools/layouts/from_binary)

test: ## install what is missing, build, run all tests (ONLY=name, STRICT=1, SERVERS=all)
	@tests/install-dependencies
	@$(MAKE) --no-print-directory -j$$(nproc) tests-built $(if $(FUZZED),fuzz-built)
	@RDB_UFFD_MODULE=$(abspath $(TESTED_MODULE)) RELEASED_MODULE=$(CURDIR)/rdb_uffd.so \
		MODULE_HAS_CHECKS=$(findstring $(CHECKED),$(TESTED_MODULE)) FUZZ_BUILD=$(CURDIR)/$(FUZZ_BUILD) \
		TEST_MODULES=$(CURDIR)/$(BUILD)/tests/modules \
		LITMUS=$(CURDIR)/$(LITMUS) LAYOUTS_TOOL=$(CURDIR)/$(BUILD)/tools/layouts/from_binary \
		TEST_SANDBOX=$(CURDIR)/$(TEST_SANDBOX) UFFD_WATCH=$(CURDIR)/uffd-watch \
		REFERENCE_FILE=$(CURDIR)/docs/SETTINGS-AND-INFO.md OPERATIONS_FILE=$(CURDIR)/docs/OPERATIONS.md \
		tests/integration/run-tests \
		$(if $(WITHOUT_MODULE),,$(UNIT_TESTS) tests/model/run tests/model/run-litmus) \
		$(if $(FUZZED),tests/fuzz/run-fuzz) $(INTEGRATION_TESTS) \
		tests/integration/test_install tests/integration/test_documents tests/integration/test_layouts \
		tests/integration/test_images

SOAK_PROGRAM := $(BUILD)/tests/soak/soak
$(BUILD)/tests/soak/%.o: CFLAGS += $(INTEGRATION_CFLAGS)
$(SOAK_PROGRAM): $(BUILD)/tests/soak/soak.o $(INTEGRATION_PARTS)
	$(call say,LINK)$(CC) $(CFLAGS) -o $@ $^ -lhiredis -lpthread

soak: ## 10,000 kills and three hours of mixed writers, on all servers side by side
	@tests/install-dependencies
	@$(MAKE) --no-print-directory rdb_uffd.so $(SOAK_PROGRAM)
	@RDB_UFFD_MODULE=$(CURDIR)/rdb_uffd.so tests/soak/run-soak $(SOAK_PROGRAM)

soak-suites: ## the tests with their loops at full length: many hours (ONLY=name)
	@SOAK=1 $(MAKE) --no-print-directory test

.PHONY: test-upgrade
test-upgrade: ## put this version in the place of an older one while clients write: OLD=tag or commit (the last tag), SERVERS=
	@tests/package/test-upgrade $(OLD)

model: ## check the models of the protocol (spin), and that mistakes in them are found
	@tests/install-dependencies
	@tests/model/run

.PHONY: litmus
litmus: $(LITMUS) ## does arm64 allow what must not be, and is it found once a fence is gone? (herd7 is asked too if there)
	@LITMUS=$(CURDIR)/$(LITMUS) tests/model/run-litmus

.PHONY: test-arm64
test-arm64: ## unit tests and some suites on arm64: as it is on such a machine, else in an emulator (TESTS="identity/ ...")
	@tests/arm64/test-arm64 $(TESTS)

run: ## see it work: save under load without and with fork, side by side
	@tests/install-dependencies
	@echo "building the module and the demonstration"
	@$(MAKE) -s --no-print-directory -j$$(nproc) rdb_uffd.so $(BUILD)/tests/demo/demo
	@$(BUILD)/tests/demo/demo rdb_uffd.so redis-module.conf

$(BUILD)/tests/demo/%.o $(BUILD)/tests/integration/%.o: CFLAGS += $(INTEGRATION_CFLAGS)
$(BUILD)/tests/demo/%.o: CFLAGS += -Itools/uffd-watch

$(BUILD)/tests/integration/test_%: $(BUILD)/tests/integration/test_%.o $(INTEGRATION_PARTS)
	$(call say,LINK)$(CC) $(CFLAGS) -o $@ $^ -lhiredis -lpthread

DEMO_PARTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/demo/*.c))
$(BUILD)/tests/demo/demo: $(DEMO_PARTS) $(INTEGRATION_PARTS) $(BUILD)/tools/uffd-watch/spark.o
	$(call say,LINK)$(CC) $(CFLAGS) -o $@ $^ -lhiredis -lpthread -lm

-include $(wildcard $(BUILD)/tests/integration/*.d $(BUILD)/tests/demo/*.d)
