# Fuzzing: one program per file tests/fuzz/fuzz_*.c, built by clang with libFuzzer.
FUZZ_BUILD   := build/fuzz
FUZZ_CFLAGS  := -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=undefined
FUZZ_TARGETS := $(patsubst tests/fuzz/%.c,$(FUZZ_BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_OBJECTS := $(patsubst %.c,$(FUZZ_BUILD)/%.o,$(wildcard src/*.c src/*/*.c) \
	$(filter-out tools/uffd-watch/main.c,$(wildcard tools/uffd-watch/*.c)))
FUZZ_HEAPS := tests/fuzz/seeds/heaps.tgz
.PHONY: fuzz fuzz-built fuzz-heaps

$(FUZZ_BUILD)/%.o: %.c
	@mkdir -p $(dir $@)
	clang $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link,address,undefined $(STANDARD) -MMD -MP -c -o $@ $<

# A program that includes a part's source, for what is static there, is linked without
# that part. Every mapping is counted: see memory_map() in tests/fuzz/bounds.h.
$(FUZZ_BUILD)/fuzz_keyspace: FUZZ_WRAPS := ,--wrap=view_read
$(FUZZ_BUILD)/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/bounds.h $(FUZZ_OBJECTS)
	clang $(FUZZ_CFLAGS) -fsanitize=fuzzer,address,undefined $(STANDARD) $(WARNINGS) -Itools/uffd-watch \
		-MMD -MP -rdynamic -Wl,--wrap=memory_map,--wrap=write$(FUZZ_WRAPS) -o $@ $< \
		$(filter-out $(shell sed -n 's|^\#include "\(.*\)\.c"$$|$(FUZZ_BUILD)/src/\1.o|p' $<),$(FUZZ_OBJECTS)) \
		$(MODULE_LIBS) -llzf -lhiredis

fuzz-built: $(FUZZ_TARGETS)

fuzz: ## fuzz the readers of what may be damaged, ten minutes each (FUZZ_SECONDS=, ONLY=name)
	@tests/install-dependencies
	@$(MAKE) --no-print-directory -j2 fuzz-built
	@FUZZ_BUILD=$(CURDIR)/$(FUZZ_BUILD) FUZZ_SECONDS=$(or $(FUZZ_SECONDS),600) \
		FUZZ_CORPUS=$(CURDIR)/$(FUZZ_BUILD)/corpus tests/fuzz/run-fuzz

# A module that asks the walkers themselves what they read.
$(FUZZ_BUILD)/recorder.so: tests/fuzz/recorder/recorder.c tests/fuzz/heap.h $(PART_OBJECTS)
	@mkdir -p $(dir $@)
	$(call say,LINK)$(CC) $(CFLAGS) $(WARNINGS) $(STANDARD) -I. -fPIC -fvisibility=hidden -shared \
		-Wl,--wrap=view_read -o $@ $< $(PART_OBJECTS) $(MODULE_LIBS)

fuzz-heaps: $(FUZZ_BUILD)/recorder.so ## record anew from real servers what fuzzing begins with
	@tests/fuzz/recorder/record $< $(FUZZ_HEAPS)

-include $(FUZZ_OBJECTS:.o=.d) $(wildcard $(FUZZ_BUILD)/*.d)
