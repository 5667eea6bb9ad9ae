# Included by the Makefile: the benchmark against the server's own fork().
BENCH_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard bench/*.c))

.PHONY: bench bench-quick loadgen

$(BUILD)/bench/loadgen: $(BENCH_OBJECTS)
	$(call say,LINK)$(CC) $(CFLAGS) -o $@ $^ -lm -lpthread

loadgen: $(BUILD)/bench/loadgen

bench: all loadgen ## measure against fork, about an hour; rewrites docs/BENCHMARKS.md and its plots
	bench/run

bench-quick: all loadgen ## the main figures in under two minutes, printed only
	bench/run --quick

-include $(BENCH_OBJECTS:.o=.d)
