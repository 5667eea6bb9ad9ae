/* The operator's connection: starts the saves at their times, asks INFO 20 times a second until each is over, and keeps
 * what the server says about it. Non-blocking, driven by the generator's loop; its commands are not counted.
 *
 *   WAITING ──time──▶ STARTING ──"+Background saving"──▶ SAVING ──no save in progress──▶ RELEASING ──module idle──▶
 *      ▲                                                                                     WAITING or DONE
 *      └──gap────────────────────────────────────────────────────────────────────────────────────┘
 * A save that the server reports as failed, or that takes longer than ten minutes, ends the program. */
#ifndef BENCH_CONTROL_H
#define BENCH_CONTROL_H

#include "memory_sampler.h"
#include "recorder.h"

#include <stdint.h>
#include <stdio.h>

struct control_options {
    uint16_t port;
    unsigned saves;
    uint64_t first_save; /* clock time */
    uint64_t gap;        /* from the end of a save to the start of the next */
    uint64_t pss_after; /* ask the sampler for Pss so long after a save began; 0: never */
};

struct control;

/* The recorder is told of every start and end; the sampler may be NULL. Dies when it cannot connect. */
struct control *control_create(const struct control_options *options,
                               struct recorder *recorder, struct memory_sampler *sampler);
void control_destroy(struct control *control);

int control_fd(const struct control *control);
/* When control_tick() wants to be called next; UINT64_MAX when only a reply is waited for. */
uint64_t control_due(const struct control *control);
void control_tick(struct control *control, uint64_t now);
void control_readable(struct control *control, uint64_t now);

/* 0 while saves are to come or under way, else the time when the last one was over. */
uint64_t control_done(const struct control *control);

/* "save.K.FIELD value" lines from the INFO taken at the end of every save. */
void control_print(const struct control *control, FILE *out);

#endif
