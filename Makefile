# rdb_uffd: `make help` says what there is.
CC       ?= gcc
CFLAGS   ?= -O2 -g
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
STANDARD := -std=gnu11 -D_GNU_SOURCE -Isrc -Imodule -include src/kernel/platform.h
BUILD    := build
# For another architecture: CROSS=aarch64-linux-gnu-, with its headers and libraries below
# SYSROOT, if they are not where that compiler looks. What is built then is in
# build/aarch64-linux-gnu (PLACE), and nothing of it at the top.
PLACE    :=
ifdef CROSS
CC       := $(CROSS)gcc $(if $(SYSROOT),--sysroot=$(SYSROOT))
BUILD    := build/$(CROSS:%-=%)
PLACE    := $(BUILD)/
endif

MODULE_SOURCES := $(wildcard module/*.c src/*.c src/*/*.c)
MODULE_OBJECTS := $(MODULE_SOURCES:%.c=$(BUILD)/%.o)
MODULE_LIBS    := -llz4 -lm -ldl -lpthread

# With checks: what headers demand of who calls is looked at (src/kernel/contract.h). For
# tests; what operators get has none.
CHECKED         := $(BUILD)/checked
CHECKED_OBJECTS := $(MODULE_SOURCES:%.c=$(CHECKED)/%.o)
CHECKS          := -DRDB_UFFD_CHECKS

UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/test_*.c))
# Unit tests link every part below module/ and rdb_uffd.c, so that a test may use any of them.
PART_OBJECTS := $(patsubst %.c,$(CHECKED)/%.o,$(wildcard src/*/*.c))

# One short line for each file that is built; V=1: the whole commands; -s: nothing.
SILENT := $(findstring s,$(firstword -$(MAKEFLAGS)))
say = $(if $(V),,@$(if $(SILENT),,printf '  %-5s %s\n' $(1) '$@';) )

.DEFAULT_GOAL := all
.PHONY: all help checked unit clean

all: $(PLACE)rdb_uffd.so ## build the module

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | expand -t 16

# nodelete: after MODULE UNLOAD its code stays mapped. Threads of the allocator, or of others,
# may be on their way out of a function of ours, say in the madvise() that it has called.
MODULE_FLAGS := -shared -Wl,-z,now -Wl,-z,nodelete -Wl,-T,module/module.ld
$(PLACE)rdb_uffd.so: $(MODULE_OBJECTS) module/module.ld
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) $(MODULE_FLAGS) -o $@ $(MODULE_OBJECTS) $(MODULE_LIBS)

checked: $(CHECKED)/rdb_uffd.so ## build/checked/rdb_uffd.so: with checks of who calls what, for tests
$(CHECKED)/rdb_uffd.so: $(CHECKED_OBJECTS) module/module.ld
	$(call say,LINK)$(CC) $(CFLAGS) $(LDFLAGS) $(MODULE_FLAGS) -o $@ $(CHECKED_OBJECTS) $(MODULE_LIBS)

COMPILE = $(call say,CC)$(CC) $(CFLAGS) $(WARNINGS) $(STANDARD) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(BUILD)/%.o: %.c
	@mkdir -p $(dir $@)
	$(COMPILE)

$(CHECKED)/%.o: %.c
	@mkdir -p $(dir $@)
	$(COMPILE) $(CHECKS)

$(BUILD)/tests/unit/%: tests/unit/%.c $(PART_OBJECTS)
	@mkdir -p $(dir $@)
	$(call say,LINK)$(CC) $(CFLAGS) $(WARNINGS) $(STANDARD) $(CHECKS) -MMD -MP -rdynamic -o $@ $< $(PART_OBJECTS) $(MODULE_LIBS) -lcmocka -llzf

unit: $(UNIT_TESTS) ## build and run the unit tests
	@for t in $(UNIT_TESTS); do $$t || exit 1; done

clean: ## remove what was built
	rm -rf $(BUILD) rdb_uffd.so uffd-watch rdb_uffd-*.tar.gz

include $(wildcard tests/tests.mk tests/fuzz/fuzz.mk tests/servers/servers.mk bench/bench.mk tools/tools.mk)

-include $(MODULE_OBJECTS:.o=.d) $(CHECKED_OBJECTS:.o=.d) $(wildcard $(BUILD)/tests/unit/*.d)
