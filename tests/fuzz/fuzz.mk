# Fuzzing: one program per file tests/fuzz/fuzz_*.c, built by clang with libFuzzer.
FUZZ_BUILD   := build/fuzz
FUZZ_CFLAGS  := -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=undefined
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(FUZZ_BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_OBJECTS := $(patsubst %.c,$(FUZZ_BUILD)/%.o,$(wildcard src/*.c src/*/*.c) \
	tools/uffd-watch/address.c tools/uffd-watch/server.c)
.PHONY: fuzz fuzz-built

$(FUZZ_BUILD)/%.o: %.c
	@mkdir -p $(dir $@)
	clang $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link,address,undefined $(STANDARD) -MMD -MP -c -o $@ $<

# A program that includes a part's source, for what is static there, is linked without
# that part. Every mapping is counted: see memory_map() in tests/fuzz/bounds.h.
$(FUZZ_BUILD)/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/bounds.h $(FUZZ_OBJECTS)
	clang $(FUZZ_CFLAGS) -fsanitize=fuzzer,address,undefined $(STANDARD) $(WARNINGS) -Itools/uffd-watch \
		-MMD -MP -Wl,--wrap=memory_map,--wrap=write -o $@ $< \
		$(filter-out $(shell sed -n 's|^\#include "\(.*\)\.c"$$|$(FUZZ_BUILD)/src/\1.o|p' $<),$(FUZZ_OBJECTS)) \
		$(MODULE_LIBS) -llzf -lhiredis

fuzz-built: $(FUZZ_TARGETS)

fuzz: ## fuzz the readers of what may be damaged, ten minutes each (FUZZ_SECONDS=, ONLY=name)
	@tests/install-dependencies
	@$(MAKE) --no-print-directory -j2 fuzz-built
	@FUZZ_BUILD=$(CURDIR)/$(FUZZ_BUILD) FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) \
		FUZZ_CORPUS=$(CURDIR)/$(FUZZ_BUILD)/corpus tests/fuzz/run-fuzz

-include $(FUZZ_OBJECTS:.o=.d) $(wildcard $(FUZZ_BUILD)/*.d)
