# Included by the Makefile: the benchmark against the server's own fork().
BENCH_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard bench/*.c))

.PHONY: bench bench-pressure bench-servers bench-quick loadgen

$(BUILD)/bench/loadgen: $(BENCH_OBJECTS)
	$(call say,LINK)$(CC) $(CFLAGS) -o $@ $^ -lm -lpthread

loadgen: $(BUILD)/bench/loadgen $(BUILD)/tests/modules/typed.so

bench: all loadgen ## measure against fork, about an hour; rewrites docs/BENCHMARKS.md and its plots
	bench/run

bench-pressure: all loadgen ## the same where fork might be ahead, about an hour; rewrites docs/BENCHMARKS-PRESSURE.md
	bench/run --set pressure

bench-servers: all loadgen ## a million keys on every server there is, twenty minutes; rewrites docs/BENCHMARKS-SERVERS.md
	bench/run --set servers

bench-quick: all loadgen ## the main figures in under two minutes, printed only
	bench/run --quick

-include $(BENCH_OBJECTS:.o=.d)
