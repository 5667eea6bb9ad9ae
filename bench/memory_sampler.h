/* Memory seen from outside, every 50 ms, from a thread of its own so that it never holds up the generator.
 *
 * smaps and smaps_rollup would give Pss, but they walk the page tables of a heap of gigabytes with its memory map
 * locked: that would be a stall of the measurement's own making. So what is sampled is counters only: statm of the
 * server and of its child, and AnonPages + Shmem + PageTables of the whole machine, which counts a page that fork
 * shares once and a copied one twice, as Pss would. Its growth since just before the save is the extra memory; nothing
 * else of size may run on the machine then. */
#ifndef BENCH_MEMORY_SAMPLER_H
#define BENCH_MEMORY_SAMPLER_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct memory_sampler;

/* Starts the thread; dies when the process cannot be looked at. */
struct memory_sampler *memory_sampler_start(pid_t server);

/* Asks for Pss of all processes once, now, by smaps_rollup: for runs whose latencies are not looked at. */
void memory_sampler_want_pss(struct memory_sampler *sampler);

/* Ends the thread; the samples stay readable. */
void memory_sampler_stop(struct memory_sampler *sampler);

/* CSV in KB, times in ms since `zero`. 0 or -errno. */
int memory_sampler_write(const struct memory_sampler *sampler, const char *path,
                         uint64_t zero);

/* "name value" lines: what was there just before `start`, and the most there was from then to `end`. */
void memory_sampler_print(const struct memory_sampler *sampler, uint64_t start,
                          uint64_t end, FILE *out);

void memory_sampler_destroy(struct memory_sampler *sampler);

#endif
