#include "generator.h"

#include "common.h"
#include "connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    MAX_EVENTS = 64,
    ISSUE_AT_ONCE =
        512, /* after a pause, replies are looked at again after so many commands */
};

#define DRAIN_LIMIT (60 * NSEC_PER_SEC)

struct generator {
    const struct generator_options *options;
    struct workload *workload;
    struct recorder *recorder;
    struct control *control;
    struct connection *connections;
    uint64_t *batch_start; /* closed loop: when the batch under way was sent */
    int epoll_fd;
    uint64_t issued, answered;
    size_t command_size;
};

static uint64_t due(const struct generator *generator, uint64_t index)
{
    uint64_t exact =
        (uint64_t)((__uint128_t)index * NSEC_PER_SEC / generator->options->rate);
    uint64_t tick = generator->options->tick;
    return generator->recorder->origin + (exact + tick - 1) / tick * tick;
}

static bool open_loop(const struct generator *generator)
{
    return generator->options->pipeline == 0 && generator->options->rate > 0;
}

/* In open loop replies are fetched once a tick and need not wake anybody. */
static uint32_t events_for(const struct generator *generator)
{
    return open_loop(generator) ? 0 : EPOLLIN;
}

static void watch(const struct generator *generator, int fd, unsigned tag,
                  uint32_t events, int how)
{
    struct epoll_event event = {.events = events, .data.u32 = tag};
    if (epoll_ctl(generator->epoll_fd, how, fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void flush(struct generator *generator, unsigned index)
{
    struct connection *connection = &generator->connections[index];
    bool had_room =
        connection->out_start == 0; /* else EPOLLOUT is being watched already */
    if (!connection_flush(connection))
        watch(generator, connection->fd, index, events_for(generator) | EPOLLOUT,
              EPOLL_CTL_MOD);
    else if (!had_room)
        watch(generator, connection->fd, index, events_for(generator), EPOLL_CTL_MOD);
}

/* Puts every command that is due by now into its connection's buffer, then hands over what was filled. */
static void issue_due(struct generator *generator, uint64_t now, uint64_t finish)
{
    unsigned connections = generator->options->connections;
    uint64_t first = generator->issued, at;
    while (generator->issued - first < ISSUE_AT_ONCE &&
           (at = due(generator, generator->issued)) <= now && at < finish) {
        struct connection *connection =
            &generator->connections[generator->issued % connections];
        char *room = connection_room(connection, generator->command_size);
        connection_issue(connection, workload_next(generator->workload, room));
        histogram_record(&generator->recorder->lateness, now - at);
        generator->issued++;
    }
    uint64_t touched =
        generator->issued - first < connections ? generator->issued - first : connections;
    for (uint64_t i = 0; i < touched; i++)
        flush(generator, (unsigned)((first + i) % connections));
}

static size_t next_closed(struct generator *generator, char *room)
{
    if (generator->options->fill)
        return workload_fill(generator->workload, generator->issued, room);
    return workload_next(generator->workload, room);
}

static void issue_batch(struct generator *generator, unsigned index)
{
    struct connection *connection = &generator->connections[index];
    for (unsigned i = 0; i < generator->options->pipeline; i++) {
        if (generator->options->fill && generator->issued == generator->options->fill)
            break;
        char *room = connection_room(connection, generator->command_size);
        connection_issue(connection, next_closed(generator, room));
        generator->issued++;
    }
    generator->batch_start[index] = clock_nsec();
    flush(generator, index);
}

static void take_replies(struct generator *generator, unsigned index, bool more)
{
    struct connection *connection = &generator->connections[index];
    uint64_t first = connection->replies, now, count = connection_read(connection, &now);
    generator->answered += count;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = generator->batch_start[index];
        if (open_loop(generator))
            start = due(generator, (first + i) * generator->options->connections + index);
        if (now < start)
            die("a reply before its command: the clocks do not agree");
        recorder_reply(generator->recorder, start, now);
    }
    if (generator->options->pipeline && more && connection->replies == connection->issued)
        issue_batch(generator, index);
}

static void open_all(struct generator *generator)
{
    unsigned count = generator->options->connections;
    generator->connections = calloc(count, sizeof *generator->connections);
    generator->batch_start = calloc(count, sizeof *generator->batch_start);
    generator->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!generator->connections || !generator->batch_start || generator->epoll_fd < 0)
        die("cannot start");
    for (unsigned i = 0; i < count; i++) {
        connection_open(&generator->connections[i], generator->options->port);
        watch(generator, generator->connections[i].fd, i, events_for(generator),
              EPOLL_CTL_ADD);
    }
    watch(generator, control_fd(generator->control), count, EPOLLIN, EPOLL_CTL_ADD);
}

static void close_all(struct generator *generator)
{
    for (unsigned i = 0; i < generator->options->connections; i++)
        connection_close(&generator->connections[i]);
    close(generator->epoll_fd);
    free(generator->connections);
    free(generator->batch_start);
}

static void fetch_replies(struct generator *generator)
{
    for (unsigned i = 0; i < generator->options->connections; i++)
        if (generator->connections[i].replies < generator->connections[i].issued)
            take_replies(generator, i, false);
}

/* Sleeps until something is to be read or `until` has come, at most 100 ms, and deals with what has arrived. */
static void wait_and_receive(struct generator *generator, uint64_t until, bool more)
{
    struct epoll_event events[MAX_EVENTS];
    uint64_t now = clock_nsec(), wait = until > now ? until - now : 0;
    if (wait > 100 * NSEC_PER_MSEC)
        wait = 100 * NSEC_PER_MSEC;
    struct timespec timeout = {.tv_nsec = (long)wait};
    int count = epoll_pwait2(generator->epoll_fd, events, MAX_EVENTS, &timeout, NULL);
    if (count < 0 && errno != EINTR)
        die("epoll_pwait2: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        unsigned index = events[i].data.u32;
        if (index == generator->options->connections) {
            control_readable(generator->control, clock_nsec());
            continue;
        }
        if (events[i].events & EPOLLOUT)
            flush(generator, index);
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            take_replies(generator, index, more);
    }
}

/* When to stop sending: UINT64_MAX while a save is to come or under way. */
static uint64_t finish_time(const struct generator *generator)
{
    const struct generator_options *options = generator->options;
    if (options->fill)
        return generator->issued < options->fill ? UINT64_MAX : 0;
    if (generator->recorder->saves == 0 && control_due(generator->control) == UINT64_MAX)
        return generator->recorder->origin + options->duration;
    uint64_t done = control_done(generator->control);
    return done ? done + options->duration : UINT64_MAX;
}

void generator_run(const struct generator_options *options, struct workload *workload,
                   struct recorder *recorder, struct control *control)
{
    struct generator generator = {.options = options,
                                  .workload = workload,
                                  .recorder = recorder,
                                  .control = control};
    generator.command_size = workload_command_size(workload);
    open_all(&generator);
    recorder->origin = clock_nsec();
    for (unsigned i = 0; options->pipeline && i < options->connections; i++)
        issue_batch(&generator, i);

    uint64_t now, finish;
    while ((now = clock_nsec()) < (finish = finish_time(&generator))) {
        if (open_loop(&generator)) {
            issue_due(&generator, now, finish);
            fetch_replies(&generator);
        }
        control_tick(control, now);
        uint64_t until = control_due(control);
        if (open_loop(&generator) && due(&generator, generator.issued) < until)
            until = due(&generator, generator.issued);
        wait_and_receive(&generator, until < finish ? until : finish, true);
    }
    uint64_t limit = clock_nsec() + DRAIN_LIMIT;
    while (generator.answered < generator.issued) {
        wait_and_receive(&generator, clock_nsec() + NSEC_PER_MSEC, false);
        fetch_replies(&generator);
        if (clock_nsec() > limit)
            die("%llu replies never came",
                (unsigned long long)(generator.issued - generator.answered));
    }
    close_all(&generator);
}
