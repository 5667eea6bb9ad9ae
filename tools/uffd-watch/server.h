/* A server that is watched: how to reach it, and what it said last. */
#ifndef UFFD_WATCH_SERVER_H
#define UFFD_WATCH_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "address.h"
#include "spark.h"

#define SAVES_KEPT 5
#define RESULTS    4 /* ways for a save to end */

struct login {
    const char *user;
    const char *password;
    bool tls;
    const char *ca, *certificate, *key;
    double timeout_seconds;
};

/* A save that ended between two looks. */
struct ended {
    time_t seen;
    const char *result; /* "ok", "failed", "cancelled" or "forked" */
    double save_msec, freeze_msec, faults, buffer_peak, waits;
};

struct watched {
    const char *name; /* as it was given */
    struct address address;
    void *connection; /* redisContext, NULL: not connected */
    char *info;       /* the whole answer to INFO, NULL: none */
    char error[256];  /* "" when the last look went well */
    double looked;    /* seconds of a steady clock */

    /* From one look to the next. */
    double faults_before, saves_before, waits_before, results_before[RESULTS];
    double faults_per_second;
    double freezes_msec[SAVES_KEPT]; /* of the last saves, the last one first */
    int freeze_count;
    struct looks rates, buffers, waits; /* faults and waits a second, bytes */
    struct ended ended[SAVES_KEPT];     /* the last one first */
    int ended_count;
};

/* Connects if need be and asks. False, and why in `error`, when the server is not
 * there, refuses, or has not loaded the module. */
bool watched_look(struct watched *server, const struct login *login);
/* A field of INFO as text, in a buffer that the next call overwrites; "" if there is
 * none. */
const char *watched_text(const struct watched *server, const char *field);
double watched_number(const struct watched *server, const char *field);
/* Of the save under way; less than 0: it cannot be told yet. */
double watched_seconds_left(const struct watched *server);
/* What is wrong with its saves, in two or three words; NULL: nothing. */
const char *watched_trouble(const struct watched *server);
void watched_close(struct watched *server);

double steady_seconds(void);

#endif
