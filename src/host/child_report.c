#include "host/child_report.h"

#include <poll.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "kernel/thread.h"

static size_t report_bytes;

void child_report_set_size(size_t bytes)
{
    DEMAND_MAIN_THREAD();
    report_bytes = bytes;
}

/* childinfo.c: the parent reads whole records, so a short one would put it out
 * of step. A pipe with POLLOUT has room for PIPE_BUF bytes. */
struct report {
    uint64_t keys;
    uint64_t copied_bytes;
    uint64_t updated_usec;
    double progress;
    uint64_t type; /* before Valkey 9.1; after: bytes sent to replicas */
    uint64_t type_9_1;
};

#define REPORT_TYPE_OUTPUT_BYTES 5 /* Valkey 9.1 */

static int report_type(enum child_cause cause, enum child_report kind)
{
    if (kind == CHILD_REPORT_PROGRESS)
        return 0;
    return cause == CHILD_REWRITE_AOF ? 1 : 2;
}

static void send_report(int report_pipe, const struct report *report)
{
    struct pollfd room = {.fd = report_pipe, .events = POLLOUT};
    if (report_pipe < 0 || poll(&room, 1, 0) <= 0 || !(room.revents & POLLOUT))
        return;
    (void)!write(report_pipe, report, report_bytes);
}

static bool counts_output_bytes(void)
{
    return report_bytes == sizeof(struct report);
}

void child_report_send(int report_pipe, enum child_cause cause, enum child_report kind,
                       uint64_t keys, uint64_t preserved_bytes)
{
    DEMAND_THREAD(THREAD_SAVER);
    struct report report = {
        .keys = keys,
        .copied_bytes = preserved_bytes,
        .updated_usec = clock_usec(),
        .progress = -1,
    };
    uint64_t type = (uint64_t)report_type(cause, kind);
    if (counts_output_bytes())
        report.type_9_1 = type;
    else
        report.type = type;
    send_report(report_pipe, &report);
}

void child_report_send_output(int report_pipe, uint64_t bytes)
{
    DEMAND_THREAD(THREAD_SAVER);
    struct report report = {
        .updated_usec = clock_usec(),
        .progress = -1,
        .type = bytes,
        .type_9_1 = REPORT_TYPE_OUTPUT_BYTES,
    };
    if (counts_output_bytes())
        send_report(report_pipe, &report);
}
