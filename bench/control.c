#include "control.h"

#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum state { WAITING, STARTING, SAVING, RELEASING, DONE };
enum { INFO_SIZE = 64 * 1024 };

#define POLL_NSEC       (50 * NSEC_PER_MSEC)
#define SAVE_LIMIT_NSEC (600 * NSEC_PER_SEC)

struct control {
    struct control_options options;
    struct recorder *recorder;
    struct memory_sampler *sampler;
    int fd;
    enum state state;
    bool reply_due; /* a command is under way */
    uint64_t next;  /* when the next command is to be sent */
    uint64_t started, done;
    char text[INFO_SIZE];
    size_t length;
    char *results[MAX_SAVES]; /* INFO at the end of each save */
    uint64_t release_nsec[MAX_SAVES];
};

static void request(struct control *control, const char *command)
{
    size_t length = strlen(command);
    if (send(control->fd, command, length, MSG_NOSIGNAL) != (ssize_t)length)
        die("the server is gone (control)");
    control->length = 0;
    control->reply_due = true;
}

/* Value of an INFO field as a number; `absent` when the server has no such field. */
static long long info_number(const char *info, const char *field, long long absent)
{
    size_t length = strlen(field);
    for (const char *at = info; (at = strstr(at, field)) != NULL; at += length)
        if ((at == info || at[-1] == '\n') && at[length] == ':')
            return strtoll(at + length + 1, NULL, 10);
    return absent;
}

struct control *control_create(const struct control_options *options,
                               struct recorder *recorder, struct memory_sampler *sampler)
{
    struct control *control = calloc(1, sizeof *control);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(options->port)};
    if (!control)
        die("out of memory");
    control->options = *options;
    control->recorder = recorder;
    control->sampler = sampler;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    control->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (control->fd < 0 ||
        connect(control->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("cannot connect to 127.0.0.1:%u: %s", options->port, strerror(errno));
    fcntl(control->fd, F_SETFL, O_NONBLOCK);
    control->next = options->first_save;
    if (options->saves == 0)
        control->state = DONE;
    return control;
}

void control_destroy(struct control *control)
{
    close(control->fd);
    for (unsigned i = 0; i < MAX_SAVES; i++)
        free(control->results[i]);
    free(control);
}

int control_fd(const struct control *control)
{
    return control->fd;
}

uint64_t control_due(const struct control *control)
{
    return control->state == DONE || control->reply_due ? UINT64_MAX : control->next;
}

uint64_t control_done(const struct control *control)
{
    return control->state == DONE ? control->done : 0;
}

void control_tick(struct control *control, uint64_t now)
{
    if (now < control_due(control))
        return;
    if (control->state == WAITING) {
        control->started = now;
        recorder_save_started(control->recorder, now);
        request(control, "BGSAVE\r\n");
        control->state = STARTING;
        return;
    }
    if (now - control->started > SAVE_LIMIT_NSEC)
        die("the save does not end");
    /* One section more costs the server's main thread about as much as a GET. */
    request(control, "INFO persistence stats uffd\r\n");
    control->next = now + POLL_NSEC;
}

static void save_over(struct control *control, uint64_t now)
{
    recorder_save_ended(control->recorder, now);
    if (!strstr(control->text, "rdb_last_bgsave_status:ok"))
        die("the save failed:\n%s", control->text);
    control->state = RELEASING;
}

/* The module is done with the save too: keep the report, and plan what follows. */
static void release_over(struct control *control, uint64_t now)
{
    unsigned save = control->recorder->saves - 1;
    control->results[save] = strdup(control->text);
    control->release_nsec[save] = now - control->recorder->save_end[save];
    control->done = now;
    control->next = now + control->options.gap;
    control->state = control->recorder->saves < control->options.saves ? WAITING : DONE;
}

static void look_at_info(struct control *control, uint64_t now)
{
    const char *info = control->text;
    if (control->state == SAVING && info_number(info, "rdb_bgsave_in_progress", -1) == 0)
        save_over(control, now);
    if (control->state == RELEASING) {
        const char *module = strstr(info, "uffd_state:");
        if (!module || strncmp(module, "uffd_state:idle", 15) == 0)
            release_over(control, now);
        return;
    }
    if (control->options.pss_after && control->sampler &&
        now - control->started > control->options.pss_after) {
        memory_sampler_want_pss(control->sampler);
        control->options.pss_after = 0;
    }
}

/* True when the text holds one whole reply: a line, or a bulk with its length. */
static bool reply_complete(const struct control *control)
{
    const char *newline = memchr(control->text, '\n', control->length);
    if (!newline || control->text[0] != '$')
        return newline != NULL;
    size_t bulk = strtoul(control->text + 1, NULL, 10);
    return control->length >= (size_t)(newline + 1 - control->text) + bulk + 2;
}

void control_readable(struct control *control, uint64_t now)
{
    ssize_t got = recv(control->fd, control->text + control->length,
                       INFO_SIZE - 1 - control->length, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0)
        die("the server is gone (control)");
    control->length += (size_t)got;
    control->text[control->length] = '\0';
    if (!reply_complete(control))
        return;
    control->reply_due = false;
    if (control->text[0] == '-')
        die("error reply: %s", control->text);
    if (control->state == STARTING) {
        control->state = SAVING;
        control->next = now + POLL_NSEC;
    } else {
        look_at_info(control, now);
    }
}

static bool worth_printing(const char *line)
{
    static const char *const wanted[] = {
        "uffd_", "latest_fork_usec:", "rdb_last_cow_size:", "current_cow_peak:"};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
            return true;
    return false;
}

void control_print(const struct control *control, FILE *out)
{
    for (unsigned save = 0; save < control->recorder->saves; save++) {
        if (!control->results[save])
            continue;
        char *rest = NULL, *copy = strdup(control->results[save]);
        if (!copy)
            die("out of memory");
        for (char *line = strtok_r(copy, "\r\n", &rest); line;
             line = strtok_r(NULL, "\r\n", &rest)) {
            char *colon = strchr(line, ':');
            if (colon && worth_printing(line))
                fprintf(out, "save.%u.%.*s %s\n", save + 1, (int)(colon - line), line,
                        colon + 1);
        }
        fprintf(out, "save.%u.release_msec %.1f\n", save + 1,
                (double)control->release_nsec[save] / (double)NSEC_PER_MSEC);
        free(copy);
    }
}
