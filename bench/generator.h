/* The loop that sends and receives.
 *
 * Open loop: commands become due at a fixed rate, on a grid of ticks (those of one tick are due together), and go to
 * the connections in turn, whatever became of the earlier ones; late commands are sent together. Replies come in order,
 * so the k-th reply of a connection tells which command it answers, and with that when that one was due: nothing is
 * remembered per command, and nothing is forgiven. The loop wakes once a tick, sends what is due and reads what has
 * come; when it came is taken from the kernel's receive time stamps. Waking for every command and every reply costs
 * most of a CPU in a virtual machine, and that CPU is the saver's.
 *
 * Closed loop: every connection keeps `pipeline` commands under way; a latency is that of a whole batch. */
#ifndef BENCH_GENERATOR_H
#define BENCH_GENERATOR_H

#include "control.h"
#include "recorder.h"
#include "workload.h"

#include <stdint.h>

struct generator_options {
    uint16_t port;
    unsigned connections;
    uint64_t rate;     /* commands per second; 0 with no pipeline: only the saves */
    uint64_t tick;     /* nanoseconds: the grid on which commands become due */
    unsigned pipeline; /* closed loop when not 0 */
    uint64_t fill;     /* closed loop: set key:0 to key:fill-1 once, instead of the mix */
    uint64_t
        duration; /* nanoseconds to go on after the last save (from the origin without saves) */
};

/* Runs to the end; every command sent has been answered when it returns. Dies on any error. */
void generator_run(const struct generator_options *options, struct workload *workload,
                   struct recorder *recorder, struct control *control);

#endif
