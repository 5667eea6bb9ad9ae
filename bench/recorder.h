/* Where latencies go: one histogram per phase and per save, and a timeline of 10 ms windows. A latency always starts at
 * the moment the command was due, not at the moment it could be sent. */
#ifndef BENCH_RECORDER_H
#define BENCH_RECORDER_H

#include "common.h"
#include "histogram.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum phase { PHASE_BEFORE, PHASE_SAVE, PHASE_AFTER, PHASES };
enum { WINDOW_MSEC = 10 };

struct window {
    uint64_t count, sum, max; /* nanoseconds; by the time the commands were due */
};

struct recorder {
    uint64_t origin; /* when the first command is due */
    unsigned saves;
    uint64_t save_start[MAX_SAVES], save_end[MAX_SAVES]; /* end 0: still running */
    struct histogram phase[PHASES];
    struct histogram save[MAX_SAVES];
    struct histogram
        lateness; /* how long after it was due the generator issued a command */
    struct window *windows;
    size_t window_count, window_capacity;
};

/* NULL when memory is short. */
struct recorder *recorder_create(uint64_t origin);
void recorder_destroy(struct recorder *recorder);

void recorder_save_started(struct recorder *recorder, uint64_t now);
void recorder_save_ended(struct recorder *recorder, uint64_t now);

/* A command due at `due` was answered at `now`. It counts for a save that was running at any moment in between. */
void recorder_reply(struct recorder *recorder, uint64_t due, uint64_t now);

/* All replies so far. */
uint64_t recorder_replies(const struct recorder *recorder);

/* CSV with times in ms since the first save began (since the origin when there was none). */
int recorder_write_timeline(const struct recorder *recorder, const char *path);

/* "name value" lines: percentiles in microseconds, save times, how long the worst windows lasted. */
void recorder_print(const struct recorder *recorder, FILE *out);

#endif
